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
    condition = alltrue([
      for account, service in {
        "churn-test/churn-predictor"   = "predictor"
        "images-test/images-predictor" = "predictor"
        "churn-test/churn-judge"       = "judge"
      } : aws_eks_pod_identity_association.service[account].role_arn == aws_iam_role.service[service].arn
    ])
    error_message = "a predictor of either product is a predictor, a judge is a judge"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.service) == 3
    error_message = "nobody else takes a role"
  }
  assert {
    condition = alltrue([
      for service, policy in aws_iam_role_policy.service : policy.policy == module.grants.policies[service]
    ])
    error_message = "a role may what the grants say, and nothing else"
  }
}

run "only_this_cluster_s_pods_take_a_role" {
  assert {
    condition = alltrue([
      for role in aws_iam_role.service : jsondecode(role.assume_role_policy).Statement == [{
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        Condition = { ArnEquals = { "aws:SourceArn" = var.cluster_arn } }
      }]
    ])
    error_message = "Pod Identity on behalf of this cluster, nobody else"
  }
}

run "an_account_without_a_namespace_is_refused" {
  command = plan
  variables { service_accounts = { judge = ["churn-judge"] } }
  expect_failures = [var.service_accounts]
}

run "an_account_that_is_two_services_is_refused" {
  command = plan
  variables { service_accounts = { judge = ["churn-test/one"], predictor = ["churn-test/one"] } }
  expect_failures = [var.service_accounts]
}
