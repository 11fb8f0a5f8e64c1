variable "name" {
  description = "The environment, which begins the name of every role"
  type        = string
}

variable "cluster_name" {
  description = "The EKS cluster"
  type        = string
}

variable "cluster_arn" {
  description = "The EKS cluster, whose pods alone take these roles"
  type        = string
}

variable "bucket" {
  description = "The environment's bucket"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts its objects"
  type        = string
}

variable "service_accounts" {
  description = "Service accounts by the service that they are, as NAMESPACE/NAME"
  type        = map(set(string))

  validation {
    condition     = sum(concat([0], [for accounts in values(var.service_accounts) : length(accounts)])) == length(setunion([], values(var.service_accounts)...))
    error_message = "A service account is one service: EKS gives it one role."
  }
}
