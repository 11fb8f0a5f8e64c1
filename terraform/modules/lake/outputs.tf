output "bucket" {
  description = "The bucket's name"
  value       = module.bucket.name
}

output "settings" {
  description = "What the platform's processes are told of it"
  value = {
    PLUMBLINE_LAKE  = "s3://${module.bucket.name}/lake"
    PLUMBLINE_STATE = "s3://${module.bucket.name}/state"
  }
}

output "protected" {
  description = "Whether the bucket refuses to be deleted while there is an object in it"
  value       = module.bucket.protected
}
