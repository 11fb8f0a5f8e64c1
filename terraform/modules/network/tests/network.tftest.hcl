# The AWS provider's schema with made-up answers: no cloud is asked.
mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

variables {
  name         = "plumbline-test"
  cidr         = "10.20.0.0/16"
  zones        = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat_per_zone = true
  key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/logs"
}

run "a_private_and_a_public_subnet_a_zone" {
  assert {
    condition = [for zone in var.zones : aws_subnet.private[zone].cidr_block] == [
      "10.20.0.0/20", "10.20.16.0/20", "10.20.32.0/20"
    ]
    error_message = "a zone's private subnet is a /20 of its own"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : subnet.map_public_ip_on_launch == false])
    error_message = "nothing gets a public address by itself"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "a NAT gateway a zone"
  }
  assert {
    condition     = aws_vpc_endpoint.s3.service_name == "com.amazonaws.eu-central-1.s3"
    error_message = "S3 is reached by the network's own endpoint"
  }
}

run "one_nat_gateway_serves_all_zones" {
  variables { nat_per_zone = false }
  assert {
    condition = length(aws_nat_gateway.this) == 1 && alltrue([
      for route in aws_route.through_nat : route.nat_gateway_id == aws_nat_gateway.this["eu-central-1a"].id
    ])
    error_message = "each zone's way out is the one gateway"
  }
}

run "a_network_that_is_no_16_is_refused" {
  command = plan
  variables { cidr = "10.20.0.0/20" }
  expect_failures = [var.cidr]
}

run "one_zone_is_refused" {
  command = plan
  variables { zones = ["eu-central-1a"] }
  expect_failures = [var.zones]
}
