# A role a service, which may what the grants say, for the service accounts that are that service.

module "grants" {
  source = "../grants"

  bucket  = var.bucket
  key_arn = var.key_arn
}

module "role" {
  source   = "../role"
  for_each = module.grants.policies

  name             = "${var.name}-${each.key}"
  policy           = each.value
  cluster_name     = var.cluster_name
  cluster_arn      = var.cluster_arn
  service_accounts = lookup(var.service_accounts, each.key, [])
}
