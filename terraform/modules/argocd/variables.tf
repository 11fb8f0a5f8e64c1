variable "manifests" {
  description = "The repository's folder k8s/"
  type        = string

  validation {
    condition     = fileexists("${var.manifests}/apps/root.yaml") && fileexists("${var.manifests}/argocd/argocd-cm.yaml")
    error_message = "A folder with apps/root.yaml and argocd/argocd-cm.yaml."
  }
}

variable "installation" {
  description = "Argo CD's own manifests: a file, a folder, or an address that kustomize fetches"
  type        = string
}
