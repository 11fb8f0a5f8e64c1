variable "account" {
  description = "The AWS account of staging: another one's credentials are refused"
  type        = string
}

variable "administrators" {
  description = "ARNs of the IAM roles that administer the cluster"
  type        = list(string)
}

variable "api_cidrs" {
  description = "Addresses that reach the cluster's API server from outside of the network"
  type        = list(string)
  default     = []
}
