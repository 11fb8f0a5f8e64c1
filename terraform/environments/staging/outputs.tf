output "cluster" {
  description = "The cluster's name: `aws eks update-kubeconfig --name …`"
  value       = module.platform.cluster
}

output "settings" {
  description = "What the platform's processes are told"
  value       = module.platform.settings
}

output "endpoints" {
  description = "Where the databases are"
  value       = module.platform.endpoints
}

output "role_arns" {
  description = "The role of each service"
  value       = module.platform.role_arns
}

output "protected" {
  description = "What refuses to be deleted"
  value       = module.platform.protected
}

output "service_accounts" {
  description = "The service of each service account that takes a role, by NAMESPACE/NAME"
  value       = module.platform.service_accounts
}
