# One bucket an environment, with a folder for what docker-compose.yml has a bucket for: lake, state, artifacts, models.

module "bucket" {
  source = "../bucket"

  name            = var.bucket
  key_arn         = var.key_arn
  noncurrent_days = var.noncurrent_days
  deletable       = var.deletable

  # The code creates a release by a conditional write. Here nobody can do it otherwise, whatever their role may.
  statements = [{
    Sid       = "ReleasesAreCreatedOnce"
    Effect    = "Deny"
    Principal = "*"
    Action    = "s3:PutObject"
    Resource  = "arn:aws:s3:::${var.bucket}/state/releases/*"
    Condition = {
      Null = { "s3:if-none-match" = "true" }
      Bool = { "s3:ObjectCreationOperation" = "true" }
    }
  }]
}
