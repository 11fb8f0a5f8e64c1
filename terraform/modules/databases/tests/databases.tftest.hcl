mock_provider "aws" {
  mock_resource "aws_db_instance" {
    defaults = {
      master_user_secret = [{
        secret_arn    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds"
        kms_key_id    = "arn:aws:kms:eu-central-1:111122223333:key/data"
        secret_status = "active"
      }]
    }
  }
}

variables {
  name            = "plumbline-test"
  vpc_id          = "vpc-1"
  subnet_ids      = ["subnet-1", "subnet-2"]
  client_group_id = "sg-pods"
  key_arn         = "arn:aws:kms:eu-central-1:111122223333:key/data"
  postgres_class  = "db.t4g.medium"
  redis_type      = "cache.t4g.small"
  available       = true
  protected       = true
  backup_days     = 14
}

run "no_password_is_known_here" {
  assert {
    condition     = aws_db_instance.postgres.manage_master_user_password == true
    error_message = "RDS makes the password and renews it"
  }
  assert {
    condition     = output.postgres_secret_arn == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds"
    error_message = "who needs the password reads the secret"
  }
  assert {
    condition     = aws_elasticache_user.nobody.access_string == "off ~keys* -@all"
    error_message = "Redis' user `default` may do nothing"
  }
}

run "only_the_cluster_connects_and_only_by_tls" {
  assert {
    condition = alltrue([
      for name, port in { postgres = 5432, redis = 6379 } :
      aws_vpc_security_group_ingress_rule.clients[name].referenced_security_group_id == "sg-pods" &&
      aws_vpc_security_group_ingress_rule.clients[name].from_port == port &&
      aws_vpc_security_group_ingress_rule.clients[name].to_port == port
    ])
    error_message = "one port each, from the cluster's group"
  }
  assert {
    condition     = aws_db_instance.postgres.publicly_accessible == false
    error_message = "Postgres has no public address"
  }
  assert {
    condition = one([
      for parameter in aws_db_parameter_group.postgres.parameter : parameter.value if parameter.name == "rds.force_ssl"
    ]) == "1"
    error_message = "Postgres refuses a connection without TLS"
  }
  assert {
    condition     = aws_elasticache_replication_group.redis.transit_encryption_mode == "required"
    error_message = "so does Redis"
  }
}

run "redis_never_drops_a_customer" {
  assert {
    condition = one([
      for parameter in aws_elasticache_parameter_group.redis.parameter : parameter.value
      if parameter.name == "maxmemory-policy"
    ]) == "noeviction"
    error_message = "another policy loses rows when the memory is full"
  }
}

run "what_is_protected_cannot_be_deleted" {
  assert {
    condition = (
      aws_db_instance.postgres.deletion_protection == true && aws_db_instance.postgres.skip_final_snapshot == false &&
      aws_db_instance.postgres.final_snapshot_identifier == "plumbline-test-postgres-final"
    )
    error_message = "deletion is refused, and would leave a snapshot"
  }
}

run "what_is_not_can" {
  variables {
    protected = false
    available = false
  }
  assert {
    condition     = aws_db_instance.postgres.deletion_protection == false && aws_db_instance.postgres.multi_az == false
    error_message = "dev is torn down without a trace"
  }
  assert {
    condition = (
      aws_elasticache_replication_group.redis.num_cache_clusters == 1 &&
      aws_elasticache_replication_group.redis.automatic_failover_enabled == false
    )
    error_message = "one node has nobody to fail over to"
  }
}

run "a_day_of_backups_is_too_few" {
  command = plan
  variables { backup_days = 1 }
  expect_failures = [var.backup_days]
}
