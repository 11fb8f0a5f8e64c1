output "role_arns" {
  description = "The role of each service"
  value       = { for service, role in aws_iam_role.service : service => role.arn }
}

output "service_accounts" {
  description = "The service of each service account that takes a role, by NAMESPACE/NAME"
  value       = { for account, told in local.accounts : account => told.service }
}
