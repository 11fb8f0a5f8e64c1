mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = { id = "plumbline-test-predictor", arn = "arn:aws:iam::111122223333:role/plumbline-test-predictor" }
  }
}

variables {
  name             = "plumbline-test-predictor"
  policy           = "{\"Statement\": []}"
  cluster_name     = "plumbline-test"
  cluster_arn      = "arn:aws:eks:eu-central-1:111122223333:cluster/plumbline-test"
  service_accounts = ["churn-test/churn-predictor", "images-test/images-predictor"]
}

run "its_service_accounts_take_it" {
  assert {
    condition = alltrue([
      for account in var.service_accounts :
      aws_eks_pod_identity_association.this[account].role_arn == "arn:aws:iam::111122223333:role/plumbline-test-predictor" &&
      aws_eks_pod_identity_association.this[account].cluster_name == "plumbline-test"
    ])
    error_message = "in this cluster, this role"
  }
  assert {
    condition     = toset(output.service_accounts) == toset(var.service_accounts)
    error_message = "those that are named, and nobody else"
  }
}

run "it_may_what_it_was_given" {
  assert {
    condition = (
      aws_iam_role_policy.this.policy == var.policy && aws_iam_role_policy.this.role == "plumbline-test-predictor"
    )
    error_message = "its policy is the one that was given"
  }
}

run "only_this_cluster_s_pods_take_it" {
  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { ArnEquals = { "aws:SourceArn" = var.cluster_arn } }
    }]
    error_message = "Pod Identity on behalf of this cluster, nobody else"
  }
}

run "an_account_without_a_namespace_is_refused" {
  command = plan
  variables { service_accounts = ["churn-judge"] }
  expect_failures = [var.service_accounts]
}
