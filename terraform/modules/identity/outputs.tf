output "role_arns" {
  description = "The role of each service"
  value       = { for service, role in module.role : service => role.arn }
}

output "service_accounts" {
  description = "The service of each service account that takes a role, by NAMESPACE/NAME"
  value = merge([
    for service, role in module.role : { for account in role.service_accounts : account => service }
  ]...)

  precondition {
    condition     = length(setsubtract(keys(var.service_accounts), keys(module.grants.policies))) == 0
    error_message = "A service that the grants do not name has no role: ${join(", ", keys(var.service_accounts))}."
  }
}
