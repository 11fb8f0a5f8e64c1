output "name" {
  description = "The cluster's name: `gcloud container clusters get-credentials …`"
  value       = google_container_cluster.this.name
}

output "workload_pool" {
  description = "What a service account is called in IAM: principal://…/POOL/subject/ns/NAMESPACE/sa/NAME"
  value       = one(google_container_cluster.this.workload_identity_config).workload_pool
}
