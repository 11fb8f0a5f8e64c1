# An environment, whole: what k8s/ is applied into, and what its pods reach.

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}

locals {
  name = "plumbline-${var.environment}"
}

# One key for everything at rest. Its owner is the account, whose IAM policies then say who uses it.
resource "aws_kms_key" "this" {
  description             = "Everything at rest of ${local.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "IamDecides"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.this.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${data.aws_region.this.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { ArnLike = {
          "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}:log-group:*"
        } }
      },
      {
        Sid    = "NodesDisks"
        Effect = "Allow"
        Principal = {
          AWS = "arn:aws:iam::${data.aws_caller_identity.this.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
        }
        Action   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey", "kms:CreateGrant"]
        Resource = "*"
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this.key_id
}

module "network" {
  source = "../network"

  name         = local.name
  cidr         = var.cidr
  zones        = var.zones
  nat_per_zone = var.available
  key_arn      = aws_kms_key.this.arn
}

module "cluster" {
  source = "../cluster"

  name           = local.name
  subnet_ids     = module.network.private_subnet_ids
  key_arn        = aws_kms_key.this.arn
  api_cidrs      = var.api_cidrs
  administrators = var.administrators
  node_types     = var.sizes.node_types
  nodes          = var.sizes.nodes
  protected      = var.protected
}

module "lake" {
  source = "../lake"

  bucket    = local.name
  key_arn   = aws_kms_key.this.arn
  deletable = !var.protected
}

module "databases" {
  source = "../databases"

  name            = local.name
  vpc_id          = module.network.vpc_id
  subnet_ids      = module.network.private_subnet_ids
  client_group_id = module.cluster.client_group_id
  key_arn         = aws_kms_key.this.arn
  postgres_class  = var.sizes.postgres_class
  redis_type      = var.sizes.redis_type
  available       = var.available
  protected       = var.protected
  backup_days     = var.backup_days
}

module "streams" {
  source = "../streams"

  name             = local.name
  vpc_id           = module.network.vpc_id
  subnet_ids       = module.network.private_subnet_ids
  client_group_id  = module.cluster.client_group_id
  key_arn          = aws_kms_key.this.arn
  broker_type      = var.sizes.broker_type
  broker_gigabytes = var.sizes.broker_gigabytes
}

# The service accounts that k8s/ has. Airflow's own touch no bucket, and only prod has who moves the alias.
module "identity" {
  source = "../identity"

  name         = local.name
  cluster_name = module.cluster.name
  cluster_arn  = module.cluster.arn
  bucket       = module.lake.bucket
  key_arn      = aws_kms_key.this.arn
  service_accounts = merge(
    {
      for service, account in { pipeline = "tasks", spark = "spark", mlflow = "mlflow", exporter = "exporter" } :
      service => toset(["pipeline-${var.environment}/${account}"])
    },
    {
      for service, account in { predictor = "predictor", judge = "judge", rollout = "champion" } : service => toset([
        for product in ["churn", "images"] : "${product}-${var.environment}/${product}-${account}"
      ]) if service != "rollout" || var.environment == "prod"
    },
  )
}
