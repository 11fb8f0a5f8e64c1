variable "environment" {
  description = "dev, staging or prod: the namespaces' suffix, and what everything is called after `plumbline-`"
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "An environment is one of those that k8s/ has overlays of: dev, staging, prod."
  }
}

variable "cidr" {
  description = "The addresses of the network, a /16"
  type        = string
}

variable "zones" {
  description = "Three availability zones: Kafka has a broker in each"
  type        = list(string)
}

variable "protected" {
  description = "Nothing that holds data can be deleted by `tofu destroy`"
  type        = bool
}

variable "available" {
  description = "A zone may be lost: databases have a standby, each zone its own way out"
  type        = bool
}

variable "administrators" {
  description = "ARNs of the IAM roles that administer the cluster"
  type        = list(string)
}

variable "api_cidrs" {
  description = "Addresses that reach the cluster's API server from outside of the network"
  type        = list(string)
}

variable "sizes" {
  description = "How large everything is"
  type = object({
    node_types       = list(string)
    nodes            = object({ min = number, first = number, max = number })
    postgres_class   = string
    redis_type       = string
    broker_type      = string
    broker_gigabytes = number
  })
}

variable "backup_days" {
  description = "Days that backups of the databases are kept"
  type        = number
}
