mock_provider "aws" {
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-1", latest_version = 1 }
  }
}

variables {
  name           = "plumbline-test"
  subnet_ids     = ["subnet-1", "subnet-2", "subnet-3"]
  key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/data"
  administrators = ["arn:aws:iam::111122223333:role/platform"]
  node_types     = ["m7i.large"]
  nodes          = { min = 1, first = 2, max = 4 }
  protected      = true
}

run "the_api_server_is_reached_from_inside" {
  assert {
    condition = (
      aws_eks_cluster.this.vpc_config[0].endpoint_private_access == true &&
      aws_eks_cluster.this.vpc_config[0].endpoint_public_access == false
    )
    error_message = "without `api_cidrs` it is private"
  }
  assert {
    condition = (
      aws_eks_cluster.this.access_config[0].authentication_mode == "API" &&
      aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions == false &&
      keys(aws_eks_access_entry.administrator) == var.administrators
    )
    error_message = "administrators are those that are named"
  }
  assert {
    condition = (
      one(aws_eks_cluster.this.encryption_config[0].resources) == "secrets" &&
      aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == var.key_arn
    )
    error_message = "Secrets are encrypted by the key that was given"
  }
  assert {
    condition     = aws_eks_cluster.this.deletion_protection == true
    error_message = "protected, it cannot be deleted"
  }
}

run "networks_that_are_named_reach_it_too" {
  variables { api_cidrs = ["198.51.100.0/24"] }
  assert {
    condition = (
      aws_eks_cluster.this.vpc_config[0].endpoint_public_access == true &&
      aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["198.51.100.0/24"])
    )
    error_message = "those networks and no other"
  }
}

run "the_internet_does_not" {
  command = plan
  variables { api_cidrs = ["0.0.0.0/0"] }
  expect_failures = [var.api_cidrs]
}

run "a_pod_does_not_reach_its_node_s_credentials" {
  assert {
    condition = (
      aws_launch_template.node.metadata_options[0].http_tokens == "required" &&
      aws_launch_template.node.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "the second hop, which a pod's request is, gets no answer"
  }
  assert {
    condition     = contains(keys(aws_eks_addon.this), "eks-pod-identity-agent")
    error_message = "a pod's own credentials come from the agent"
  }
  assert {
    condition     = jsondecode(aws_eks_addon.this["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "without it nothing enforces a NetworkPolicy"
  }
}

run "a_version_that_no_manifest_was_held_against_is_refused" {
  command = plan
  variables { kubernetes = "1.30" }
  expect_failures = [var.kubernetes]
}

run "more_nodes_at_first_than_at_most_are_refused" {
  command = plan
  variables { nodes = { min = 1, first = 5, max = 4 } }
  expect_failures = [var.nodes]
}
