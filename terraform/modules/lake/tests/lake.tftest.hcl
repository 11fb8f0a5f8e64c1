mock_provider "aws" {}

variables {
  bucket    = "plumbline-test"
  key_arn   = "arn:aws:kms:eu-central-1:111122223333:key/lake"
  deletable = false
}

run "it_is_where_the_overlays_look" {
  assert {
    condition     = output.settings["PLUMBLINE_LAKE"] == "s3://plumbline-test/lake"
    error_message = "settings.env names the folder lake of the bucket"
  }
}
