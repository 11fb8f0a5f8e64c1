provider "aws" {
  region              = "eu-central-1"
  allowed_account_ids = [var.account]

  default_tags {
    tags = { project = "plumbline", environment = "prod", managed-by = "opentofu" }
  }
}

module "platform" {
  source = "../../modules/platform"

  environment    = "prod"
  cidr           = "10.40.0.0/16"
  zones          = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  protected      = true
  available      = true
  administrators = var.administrators
  api_cidrs      = var.api_cidrs
  backup_days    = 30

  sizes = {
    node_types       = ["m7i.2xlarge"]
    nodes            = { min = 3, first = 3, max = 12 }
    postgres_class   = "db.m7g.large"
    redis_type       = "cache.m7g.large"
    broker_type      = "kafka.m7g.large"
    broker_gigabytes = 500
  }
}
