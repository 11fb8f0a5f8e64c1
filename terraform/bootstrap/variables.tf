variable "kubeconfig" {
  description = "A file that `aws eks update-kubeconfig --kubeconfig …` wrote"
  type        = string
}

variable "context" {
  description = "Which of its contexts; the current one if none is named"
  type        = string
  default     = null
}

variable "installation" {
  description = "Argo CD's own manifests, of the version whose CRDs the tests have: a file, a folder, or an address"
  type        = string
  default     = "https://github.com/argoproj/argo-cd//manifests/cluster-install?ref=v3.1.9"
}
