output "bucket" {
  description = "What the environments' backend.tf name"
  value       = module.bucket.name
}
