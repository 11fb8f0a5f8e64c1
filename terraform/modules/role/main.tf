# A role that service accounts of one cluster take through EKS Pod Identity. No key is made, and nothing else takes it.

resource "aws_iam_role" "this" {
  name = var.name
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

resource "aws_iam_role_policy" "this" {
  name   = "objects"
  role   = aws_iam_role.this.id
  policy = var.policy
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = var.service_accounts

  cluster_name    = var.cluster_name
  namespace       = split("/", each.key)[0]
  service_account = split("/", each.key)[1]
  role_arn        = aws_iam_role.this.arn
}
