# The bucket of OpenTofu's own state, made once, before any environment. Its own state is a file: if that is lost,
# `tofu import` finds the bucket by its name.
provider "aws" {
  region              = "eu-central-1"
  allowed_account_ids = [var.account]
}

data "aws_caller_identity" "this" {}

resource "aws_kms_key" "this" {
  description             = "OpenTofu's state"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "IamDecides"
      Effect    = "Allow"
      Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.this.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

module "bucket" {
  source = "../modules/bucket"

  name            = "plumbline-tofu-state"
  key_arn         = aws_kms_key.this.arn
  noncurrent_days = 30
  deletable       = false
}
