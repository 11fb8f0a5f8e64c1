provider "aws" {
  region              = "eu-central-1"
  allowed_account_ids = [var.account]

  default_tags {
    tags = { project = "plumbline", environment = "staging", managed-by = "opentofu" }
  }
}

module "platform" {
  source = "../../modules/platform"

  environment    = "staging"
  cidr           = "10.30.0.0/16"
  zones          = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  protected      = false
  available      = true
  administrators = var.administrators
  api_cidrs      = var.api_cidrs
  backup_days    = 7

  sizes = {
    node_types       = ["m7i.xlarge"]
    nodes            = { min = 2, first = 3, max = 8 }
    postgres_class   = "db.t4g.large"
    redis_type       = "cache.t4g.medium"
    broker_type      = "kafka.t3.small"
    broker_gigabytes = 100
  }
}
