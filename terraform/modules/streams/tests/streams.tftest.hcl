mock_provider "aws" {
  mock_resource "aws_msk_configuration" {
    defaults = { latest_revision = 1 }
  }
}

variables {
  name             = "plumbline-test"
  vpc_id           = "vpc-1"
  subnet_ids       = ["subnet-1", "subnet-2", "subnet-3"]
  client_group_id  = "sg-pods"
  key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/data"
  broker_type      = "kafka.t3.small"
  broker_gigabytes = 50
}

run "only_the_cluster_connects_and_only_by_tls" {
  assert {
    condition     = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].client_broker == "TLS"
    error_message = "a broker refuses a connection without TLS"
  }
  assert {
    condition     = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].in_cluster == true
    error_message = "brokers talk to each other by TLS"
  }
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.clients.referenced_security_group_id == "sg-pods" &&
      aws_vpc_security_group_ingress_rule.clients.from_port == 9094 &&
      aws_vpc_security_group_ingress_rule.clients.to_port == 9094
    )
    error_message = "the cluster reaches the port for TLS, and no other"
  }
  assert {
    condition     = one(one(aws_msk_cluster.this.broker_node_group_info[0].connectivity_info).public_access).type == "DISABLED"
    error_message = "no broker has a public address"
  }
}

run "a_record_survives_a_zone" {
  assert {
    condition = alltrue([
      for line in ["default.replication.factor=3", "min.insync.replicas=2", "unclean.leader.election.enable=false"] :
      contains(split("\n", aws_msk_configuration.this.server_properties), line)
    ])
    error_message = "three copies, two of them written, and no leader that lacks some"
  }
}

run "two_zones_are_refused" {
  command = plan
  variables { subnet_ids = ["subnet-1", "subnet-2"] }
  expect_failures = [var.subnet_ids]
}
