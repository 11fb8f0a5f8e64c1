mock_provider "aws" {}

variables {
  name         = "plumbline-test"
  cluster_name = "plumbline-test"
  cluster_arn  = "arn:aws:eks:eu-central-1:111122223333:cluster/plumbline-test"
  bucket       = "plumbline-test"
  key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/lake"
  service_accounts = {
    predictor = ["churn-test/churn-predictor", "images-test/images-predictor"]
    judge     = ["churn-test/churn-judge"]
  }
}

run "each_service_account_takes_its_service_s_role" {
  assert {
    condition = output.service_accounts == {
      "churn-test/churn-predictor"   = "predictor"
      "images-test/images-predictor" = "predictor"
      "churn-test/churn-judge"       = "judge"
    }
    error_message = "a predictor of either product is a predictor, a judge is a judge, and nobody else takes a role"
  }
  assert {
    condition     = { for service, role in module.role : service => role.policy } == module.grants.policies
    error_message = "a role a service, and it may what the grants say"
  }
}

run "an_account_that_is_two_services_is_refused" {
  command = plan
  variables { service_accounts = { judge = ["churn-test/one"], predictor = ["churn-test/one"] } }
  expect_failures = [var.service_accounts]
}

run "a_service_that_nothing_is_granted_is_refused" {
  command = plan
  variables { service_accounts = { judges = ["churn-test/one"] } }
  expect_failures = [output.service_accounts]
}
