variable "name" {
  description = "The environment, which begins the name of everything made here"
  type        = string
}

variable "cidr" {
  description = "The addresses of the network: a /16, of which each zone gets a private /20 and a public /24"
  type        = string

  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, "/16")
    error_message = "A /16, such as 10.20.0.0/16."
  }
}

variable "zones" {
  description = "Names of the availability zones"
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 4 && length(distinct(var.zones)) == length(var.zones)
    error_message = "Two to four zones, each once: EKS and RDS ask for two, the addresses suffice for four."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone; otherwise one, and with its zone all the others lose the internet"
  type        = bool
}

variable "key_arn" {
  description = "The key that encrypts the flow logs"
  type        = string
}
