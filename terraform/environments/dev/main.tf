provider "aws" {
  region              = "eu-central-1"
  allowed_account_ids = [var.account]

  default_tags {
    tags = { project = "plumbline", environment = "dev", managed-by = "opentofu" }
  }
}

module "platform" {
  source = "../../modules/platform"

  environment    = "dev"
  cidr           = "10.20.0.0/16"
  zones          = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  protected      = false
  available      = false
  administrators = var.administrators
  api_cidrs      = var.api_cidrs
  backup_days    = 7

  sizes = {
    node_types       = ["m7i.large"]
    nodes            = { min = 1, first = 3, max = 6 }
    postgres_class   = "db.t4g.medium"
    redis_type       = "cache.t4g.small"
    broker_type      = "kafka.t3.small"
    broker_gigabytes = 50
  }
}
