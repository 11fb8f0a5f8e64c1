output "policies" {
  description = "The IAM policy of each service, as JSON"
  value = { for service, grants in local.own : service => jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for grant in grants : {
        Effect   = "Allow"
        Action   = grant.actions
        Resource = "arn:aws:s3:::${var.bucket}/${grant.place}*"
      }],
      # IfExists: S3 answers 404 for an object that is not there only to who may list, and such a request has no prefix.
      # So names of objects can be listed by every service, without a prefix; their contents cannot be read.
      [{
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = "arn:aws:s3:::${var.bucket}"
        Condition = { StringLikeIfExists = { "s3:prefix" = [for grant in grants : "${grant.place}*"] } }
      }],
      [{
        Effect = "Allow"
        Action = concat(
          ["kms:Decrypt"],
          anytrue([for grant in grants : contains(grant.actions, "s3:PutObject")]) ? ["kms:GenerateDataKey"] : [],
        )
        Resource = var.key_arn
      }],
    )
  }) }
}
