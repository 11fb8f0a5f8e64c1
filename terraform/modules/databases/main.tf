# Postgres for Airflow and MLflow, and the Redis that the predictors answer from.

resource "aws_security_group" "this" {
  for_each = { postgres = 5432, redis = 6379 }

  name        = "${var.name}-${each.key}"
  description = "Port ${each.value} from the cluster, nothing else"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = { postgres = 5432, redis = 6379 }

  security_group_id            = aws_security_group.this[each.key].id
  referenced_security_group_id = var.client_group_id
  description                  = "The cluster's pods"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_db_subnet_group" "postgres" {
  name       = "${var.name}-postgres"
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "postgres" {
  name_prefix = "${var.name}-postgres-"
  family      = "postgres17"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "log_statement"
    value = "ddl"
  }
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  lifecycle { create_before_destroy = true }
}

resource "aws_db_instance" "postgres" {
  #checkov:skip=CKV_AWS_157:`available` decides; dev has one zone
  #checkov:skip=CKV_AWS_293:`protected` decides; dev and staging may be torn down
  identifier     = "${var.name}-postgres"
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.postgres_class

  storage_type          = "gp3"
  allocated_storage     = 50
  max_allocated_storage = 500
  storage_encrypted     = true
  kms_key_id            = var.key_arn

  # RDS makes the password, keeps it in Secrets Manager and renews it: none is in a variable or in the state.
  username                            = "plumbline"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = var.key_arn
  iam_database_authentication_enabled = true

  db_subnet_group_name   = aws_db_subnet_group.postgres.name
  parameter_group_name   = aws_db_parameter_group.postgres.name
  vpc_security_group_ids = [aws_security_group.this["postgres"].id]
  publicly_accessible    = false
  multi_az               = var.available

  backup_retention_period   = var.backup_days
  copy_tags_to_snapshot     = true
  deletion_protection       = var.protected
  skip_final_snapshot       = !var.protected
  final_snapshot_identifier = var.protected ? "${var.name}-postgres-final" : null

  auto_minor_version_upgrade            = true
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  performance_insights_enabled          = true
  performance_insights_kms_key_id       = var.key_arn
  performance_insights_retention_period = 7
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn

  lifecycle { ignore_changes = [engine_version] } # the minor version is AWS's
}

resource "aws_iam_role" "monitoring" {
  name = "${var.name}-postgres-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_elasticache_subnet_group" "redis" {
  name       = "${var.name}-redis"
  subnet_ids = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "redis" {
  name   = "${var.name}-redis"
  family = "redis7"

  # Another policy would drop customers when the memory is full; writing fails instead, and the run says so.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

# Who connects logs in as a user of this group. Its passwords are set outside of here, so that none is in the state.
resource "aws_elasticache_user_group" "redis" {
  engine        = "redis"
  user_group_id = "${var.name}-redis"
  user_ids      = [aws_elasticache_user.nobody.user_id]

  lifecycle { ignore_changes = [user_ids] }
}

# A group must have a user of the name `default`. This one is off: nobody logs in as it, and it may do nothing.
resource "aws_elasticache_user" "nobody" {
  user_id       = "${var.name}-nobody"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~keys* -@all"

  authentication_mode { type = "no-password-required" }
}

resource "aws_elasticache_replication_group" "redis" {
  #checkov:skip=CKV2_AWS_50:`available` decides; dev has one node
  replication_group_id = "${var.name}-redis"
  description          = "The online store of ${var.name}"
  engine               = "redis"
  engine_version       = "7.1"
  node_type            = var.redis_type
  parameter_group_name = aws_elasticache_parameter_group.redis.name

  num_cache_clusters         = var.available ? 2 : 1
  automatic_failover_enabled = var.available
  multi_az_enabled           = var.available

  subnet_group_name          = aws_elasticache_subnet_group.redis.name
  security_group_ids         = [aws_security_group.this["redis"].id]
  user_group_ids             = [aws_elasticache_user_group.redis.user_group_id]
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.key_arn

  snapshot_retention_limit   = var.backup_days
  auto_minor_version_upgrade = true
  apply_immediately          = false
}
