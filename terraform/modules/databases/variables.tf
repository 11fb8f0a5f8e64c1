variable "name" {
  description = "The environment, which begins the name of everything made here"
  type        = string
}

variable "vpc_id" {
  description = "The network"
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of at least two zones"
  type        = list(string)
}

variable "client_group_id" {
  description = "The security group of those who connect: the cluster's nodes and pods"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts data, backups, logs and Postgres' password"
  type        = string
}

variable "postgres_class" {
  description = "Size of Postgres"
  type        = string
}

variable "redis_type" {
  description = "Size of a Redis node"
  type        = string
}

variable "available" {
  description = "A second Postgres and a second Redis, in another zone"
  type        = bool
}

variable "protected" {
  description = "Postgres cannot be deleted, and leaves a snapshot if it is in spite of that"
  type        = bool
}

variable "backup_days" {
  description = "Days that backups of both are kept"
  type        = number

  validation {
    condition     = var.backup_days >= 7
    error_message = "At least 7 days: a damage is not always seen on the same day."
  }
}
