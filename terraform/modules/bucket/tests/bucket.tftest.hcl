mock_provider "aws" {}

variables {
  name            = "plumbline-test"
  key_arn         = "arn:aws:kms:eu-central-1:111122223333:key/lake"
  noncurrent_days = 14
  deletable       = false
  statements      = [{ Sid = "More", Effect = "Deny", Principal = "*", Action = "s3:PutObject", Resource = "*" }]
}

run "nobody_reaches_it_but_by_a_policy" {
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls,
      aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls,
      aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "all four ways to make it public are shut"
  }
  assert {
    condition = jsondecode(aws_s3_bucket_policy.this.policy).Statement[0] == {
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::plumbline-test", "arn:aws:s3:::plumbline-test/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
    error_message = "a request without TLS is refused"
  }
  assert {
    condition     = [for told in jsondecode(aws_s3_bucket_policy.this.policy).Statement : told.Sid] == ["TlsOnly", "More"]
    error_message = "statements of the caller's come after it"
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "what is overwritten can be had back"
  }
  assert {
    condition = one([
      for rule in aws_s3_bucket_server_side_encryption_configuration.this.rule :
      one(rule.apply_server_side_encryption_by_default).kms_master_key_id
    ]) == var.key_arn
    error_message = "encrypted by the key that was given"
  }
}

run "the_lifecycle_never_touches_a_current_object" {
  assert {
    condition = alltrue(flatten([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule : [
        for expiration in rule.expiration : expiration.days == null && expiration.date == null
      ]
    ]))
    error_message = "an `expiration` by age deletes what a release names"
  }
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.this.rule : length(rule.transition) == 0])
    error_message = "a released version that was moved to an archive cannot be read at once"
  }
  assert {
    condition = one(flatten([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule : [
        for expiration in rule.noncurrent_version_expiration : expiration.noncurrent_days
      ]
    ])) == 14
    error_message = "what was replaced goes after the days that were given"
  }
}

run "an_erased_person_is_gone_within_thirty_days" {
  command = plan
  variables { noncurrent_days = 31 }
  expect_failures = [var.noncurrent_days]
}
