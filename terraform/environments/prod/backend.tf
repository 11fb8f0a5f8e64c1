# Where the state lies, and its lock beside it: `use_lockfile` is S3's own put-if-absent. The bucket encrypts by its own
# key, so no `encrypt` is said here, which would choose another.
terraform {
  backend "s3" {
    bucket       = "plumbline-tofu-state"
    key          = "prod/platform.tfstate"
    region       = "eu-central-1"
    use_lockfile = true
  }
}
