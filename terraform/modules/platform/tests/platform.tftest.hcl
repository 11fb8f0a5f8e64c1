mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-1", latest_version = 1 }
  }
  mock_resource "aws_msk_configuration" {
    defaults = { latest_revision = 1 }
  }
  mock_resource "aws_msk_cluster" {
    defaults = { bootstrap_brokers_tls = "b-1.example:9094,b-2.example:9094,b-3.example:9094" }
  }
}

variables {
  environment    = "staging"
  cidr           = "10.30.0.0/16"
  zones          = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  protected      = true
  available      = true
  administrators = ["arn:aws:iam::111122223333:role/platform"]
  api_cidrs      = []
  backup_days    = 14
  sizes = {
    node_types       = ["m7i.large"]
    nodes            = { min = 2, first = 3, max = 6 }
    postgres_class   = "db.t4g.medium"
    redis_type       = "cache.t4g.small"
    broker_type      = "kafka.t3.small"
    broker_gigabytes = 100
  }
}

run "the_key_is_the_account_s_and_renewed" {
  assert {
    condition     = aws_kms_key.this.enable_key_rotation == true
    error_message = "AWS renews it each year"
  }
  assert {
    condition = jsondecode(aws_kms_key.this.policy).Statement[0].Principal == {
      AWS = "arn:aws:iam::111122223333:root"
    }
    error_message = "IAM decides who uses it"
  }
}

run "the_pods_are_told_where_everything_is" {
  assert {
    condition = output.settings == {
      PLUMBLINE_LAKE      = "s3://plumbline-staging/lake"
      PLUMBLINE_STATE     = "s3://plumbline-staging/state"
      PLUMBLINE_KAFKA_URL = "kafkas://b-1.example:9094,b-2.example:9094,b-3.example:9094"
    }
    error_message = "the environment's bucket and brokers"
  }
  assert {
    condition     = toset(keys(output.role_arns)) == toset(["exporter", "judge", "mlflow", "pipeline", "predictor", "rollout", "spark"])
    error_message = "a role a service"
  }
}

run "an_environment_without_overlays_is_refused" {
  command = plan
  variables { environment = "test" }
  expect_failures = [var.environment]
}
