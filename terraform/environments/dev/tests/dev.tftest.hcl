# The whole environment, applied to made-up answers.
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
  account        = "111122223333"
  administrators = ["arn:aws:iam::111122223333:role/platform"]
}

run "it_is_what_the_overlays_name" {
  assert {
    condition     = output.settings["PLUMBLINE_LAKE"] == "s3://plumbline-dev/lake"
    error_message = "the lake is called after the environment"
  }
  assert {
    condition     = output.cluster == "plumbline-dev"
    error_message = "the cluster is called after the environment"
  }
}

run "it_can_be_torn_down" {
  assert {
    condition     = output.protected == { bucket = false, cluster = false, postgres = false }
    error_message = "it can be torn down"
  }
}
