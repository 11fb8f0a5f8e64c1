variable "name" {
  description = "The environment, which begins the name of everything made here"
  type        = string
}

variable "vpc_id" {
  description = "The network"
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, one a zone: three, so that a zone may be lost"
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) == 3
    error_message = "Three subnets: a record has three copies, of which two must be there to be written."
  }
}

variable "client_group_id" {
  description = "The security group of those who connect: the cluster's nodes and pods"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts records and logs"
  type        = string
}

variable "broker_type" {
  description = "Size of a broker"
  type        = string
}

variable "broker_gigabytes" {
  description = "Disk of a broker"
  type        = number
}
