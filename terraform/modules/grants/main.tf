# What each service may do with the bucket's objects, in which folder, below which prefix. docker/stack/s3_keys.py says
# the same of the compose stack; a test compares the policies that come of both. No provider is asked: this is data.

locals {
  read   = ["s3:GetObject", "s3:GetObjectAttributes"]
  write  = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
  delete = ["s3:DeleteObject"]
  all    = concat(local.read, local.write, local.delete)

  grants = flatten([for folder, granted in {
    lake = [
      { service = "pipeline", actions = local.all, below = "" },
      { service = "spark", actions = local.all, below = "" },
      { service = "predictor", actions = concat(local.read, local.write), below = "serving/predictions/" },
      { service = "judge", actions = local.read, below = "serving/" },
      { service = "rollout", actions = concat(local.read, local.write), below = "serving/" },
      { service = "rollout", actions = local.read, below = "" },
      { service = "exporter", actions = local.read, below = "" },
    ]
    state = [
      { service = "pipeline", actions = local.all, below = "" },
      { service = "rollout", actions = local.all, below = "" },
      { service = "exporter", actions = local.read, below = "" },
    ]
    artifacts = [
      { service = "mlflow", actions = local.all, below = "" },
    ]
    models = [
      { service = "rollout", actions = local.all, below = "" },
      { service = "predictor", actions = local.read, below = "" },
      { service = "exporter", actions = local.read, below = "" },
    ]
  } : [for grant in granted : merge(grant, { place = "${folder}/${grant.below}" })]])

  services = toset(local.grants[*].service)
  own      = { for service in local.services : service => [for grant in local.grants : grant if grant.service == service] }
}
