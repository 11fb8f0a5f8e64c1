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

run "a_release_is_created_once" {
  assert {
    condition = [for told in jsondecode(module.bucket.policy).Statement : told if told.Action == "s3:PutObject"] == [{
      Sid       = "ReleasesAreCreatedOnce"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = "arn:aws:s3:::plumbline-test/state/releases/*"
      Condition = {
        Null = { "s3:if-none-match" = "true" }
        Bool = { "s3:ObjectCreationOperation" = "true" }
      }
    }]
    error_message = "a write without If-None-Match is refused where releases lie"
  }
}
