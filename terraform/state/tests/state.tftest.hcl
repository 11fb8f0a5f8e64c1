mock_provider "aws" {}

variables {
  account = "111122223333"
}

run "it_is_the_bucket_that_the_backends_name" {
  assert {
    condition = alltrue([
      for environment in ["dev", "staging", "prod"] :
      strcontains(file("../environments/${environment}/backend.tf"), "bucket       = \"${output.bucket}\"")
    ])
    error_message = "an environment keeps its state elsewhere"
  }
}
