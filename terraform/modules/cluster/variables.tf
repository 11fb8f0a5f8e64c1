variable "name" {
  description = "The environment, which is the cluster's name"
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, one a zone"
  type        = list(string)
}

variable "key_arn" {
  description = "The key that encrypts Secrets, the nodes' disks and logs"
  type        = string
}

variable "kubernetes" {
  description = "Kubernetes' version: `make lint` holds k8s/ against 1.32 and 1.34"
  type        = string
  default     = "1.34"

  validation {
    condition     = contains(["1.32", "1.33", "1.34"], var.kubernetes)
    error_message = "1.32 to 1.34: the manifests are held against no other."
  }
}

variable "api_cidrs" {
  description = "Addresses that reach the API server from outside of the network; none: only from inside"
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "Networks of yours, such as 198.51.100.0/24; the whole internet is none."
  }
}

variable "administrators" {
  description = "ARNs of the IAM roles that administer the cluster"
  type        = list(string)
}

variable "node_types" {
  description = "Machine types of the nodes, the first that is to be had"
  type        = list(string)
}

variable "nodes" {
  description = "How many nodes there are at least, at first and at most"
  type        = object({ min = number, first = number, max = number })

  validation {
    condition     = var.nodes.min >= 1 && var.nodes.min <= var.nodes.first && var.nodes.first <= var.nodes.max
    error_message = "1 <= min <= first <= max."
  }
}

variable "protected" {
  description = "The cluster cannot be deleted"
  type        = bool
}
