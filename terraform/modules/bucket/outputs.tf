output "name" {
  description = "The bucket's name"
  value       = aws_s3_bucket.this.bucket
}

output "protected" {
  description = "Whether it refuses to be deleted while there is an object in it"
  value       = !aws_s3_bucket.this.force_destroy
}

output "policy" {
  description = "The bucket's policy, as JSON"
  value       = aws_s3_bucket_policy.this.policy
}
