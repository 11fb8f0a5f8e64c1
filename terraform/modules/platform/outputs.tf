output "cluster" {
  description = "The cluster's name: `aws eks update-kubeconfig --name …`"
  value       = module.cluster.name
}

output "settings" {
  description = "What the platform's processes are told"
  value = merge(module.lake.settings, {
    PLUMBLINE_KAFKA_URL = "kafkas://${module.streams.bootstrap_brokers}"
  })
}

output "endpoints" {
  description = "Where the databases are; names and passwords are in no output"
  value = {
    postgres         = module.databases.postgres_endpoint
    postgres_secret  = module.databases.postgres_secret_arn
    redis            = module.databases.redis_endpoint
    redis_user_group = module.databases.redis_user_group
  }
}

output "role_arns" {
  description = "The role of each service"
  value       = module.identity.role_arns
}

output "protected" {
  description = "What refuses to be deleted"
  value = {
    bucket   = module.lake.protected
    cluster  = module.cluster.protected
    postgres = module.databases.protected
  }
}

output "service_accounts" {
  description = "The service of each service account that takes a role, by NAMESPACE/NAME"
  value       = module.identity.service_accounts
}
