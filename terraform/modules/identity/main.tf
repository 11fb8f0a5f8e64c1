# A role a service, taken by its service accounts through EKS Pod Identity. No key is made, and nothing else takes a role.

module "grants" {
  source = "../grants"

  bucket  = var.bucket
  key_arn = var.key_arn
}

locals {
  accounts = merge([for service, accounts in var.service_accounts : {
    for account in accounts : account => merge(
      zipmap(["namespace", "name"], split("/", account)), { service = service },
    )
  }]...)
}

resource "aws_iam_role" "service" {
  for_each = module.grants.policies

  name        = "${var.name}-${each.key}"
  description = "What ${each.key} may do with the objects of ${var.bucket}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { ArnEquals = { "aws:SourceArn" = var.cluster_arn } }
    }]
  })
}

resource "aws_iam_role_policy" "service" {
  for_each = module.grants.policies

  name   = "objects"
  role   = aws_iam_role.service[each.key].id
  policy = each.value
}

resource "aws_eks_pod_identity_association" "service" {
  for_each = local.accounts

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.name
  role_arn        = aws_iam_role.service[each.value.service].arn
}
