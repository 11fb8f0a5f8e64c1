output "postgres_endpoint" {
  description = "Host and port of Postgres"
  value       = aws_db_instance.postgres.endpoint
}

output "postgres_secret_arn" {
  description = "The secret with the name and password of Postgres' owner, which RDS renews"
  value       = one(aws_db_instance.postgres.master_user_secret[*].secret_arn)
}

output "redis_endpoint" {
  description = "The host of Redis, on port 6379 with TLS (rediss://)"
  value       = aws_elasticache_replication_group.redis.primary_endpoint_address
}

output "redis_user_group" {
  description = "The group to which a user must belong to log in to Redis"
  value       = aws_elasticache_user_group.redis.user_group_id
}

output "protected" {
  description = "Whether Postgres refuses to be deleted, and would leave a snapshot"
  value       = aws_db_instance.postgres.deletion_protection && !aws_db_instance.postgres.skip_final_snapshot
}
