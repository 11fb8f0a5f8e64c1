# Kafka for the order stream: three brokers, by TLS. MSK's logins are SCRAM, IAM or a certificate; the platform's clients
# know PLAIN alone. So nobody logs in: who is in the cluster's security group may connect, nobody else.

resource "aws_security_group" "this" {
  name        = "${var.name}-kafka"
  description = "Kafka with TLS from the cluster, nothing else"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  security_group_id            = aws_security_group.this.id
  referenced_security_group_id = var.client_group_id
  description                  = "The cluster's pods"
  ip_protocol                  = "tcp"
  from_port                    = 9094
  to_port                      = 9094
}

resource "aws_msk_configuration" "this" {
  name           = var.name
  kafka_versions = [local.kafka]
  server_properties = join("\n", [
    "auto.create.topics.enable=false",
    "default.replication.factor=3",
    "min.insync.replicas=2",
    "unclean.leader.election.enable=false",
    "",
  ])

  lifecycle { create_before_destroy = true }
}

locals {
  kafka = "3.9.x"
}

resource "aws_msk_cluster" "this" {
  cluster_name           = var.name
  kafka_version          = local.kafka
  number_of_broker_nodes = 3
  enhanced_monitoring    = "PER_TOPIC_PER_BROKER"

  broker_node_group_info {
    instance_type   = var.broker_type
    client_subnets  = var.subnet_ids
    security_groups = [aws_security_group.this.id]
    storage_info {
      ebs_storage_info { volume_size = var.broker_gigabytes }
    }
    connectivity_info {
      public_access { type = "DISABLED" }
    }
  }

  client_authentication { unauthenticated = true }

  configuration_info {
    arn      = aws_msk_configuration.this.arn
    revision = aws_msk_configuration.this.latest_revision
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = var.key_arn
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  open_monitoring {
    prometheus {
      jmx_exporter { enabled_in_broker = true }
      node_exporter { enabled_in_broker = true }
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.brokers.name
      }
    }
  }
}

resource "aws_cloudwatch_log_group" "brokers" {
  name              = "/${var.name}/kafka"
  retention_in_days = 365
  kms_key_id        = var.key_arn
}
