variable "name" {
  description = "The role's name"
  type        = string
}

variable "policy" {
  description = "What it may do, as JSON"
  type        = string
}

variable "cluster_name" {
  description = "The EKS cluster"
  type        = string
}

variable "cluster_arn" {
  description = "The EKS cluster, whose pods alone take the role"
  type        = string
}

variable "service_accounts" {
  description = "Who takes it, as NAMESPACE/NAME"
  type        = set(string)

  validation {
    condition     = alltrue([for account in var.service_accounts : can(regex("^[a-z0-9-]+/[a-z0-9-]+$", account))])
    error_message = "NAMESPACE/NAME, such as churn-dev/churn-predictor."
  }
}
