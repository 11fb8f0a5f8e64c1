terraform {
  required_version = "~> 1.12"
  required_providers {
    kustomization = {
      source  = "kbst/kustomization"
      version = "0.9.8"
    }
  }
}
