variable "name" {
  description = "The environment, which is the cluster's name"
  type        = string
}

variable "project" {
  description = "Google Cloud's project"
  type        = string
}

variable "region" {
  description = "The region: the control plane and the nodes are in three of its zones"
  type        = string
}

variable "network" {
  description = "The network, and the subnet with two secondary ranges: for pods and for services"
  type        = object({ id = string, subnet_id = string, pods_range = string, services_range = string })
}

variable "key_id" {
  description = "The key that encrypts Secrets and the nodes' disks; GKE's and Compute's agents may use it already"
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
  description = "Networks that reach the API server, by name; its address is inside of the network"
  type        = map(string)

  validation {
    condition     = alltrue([for cidr in values(var.api_cidrs) : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "Networks of yours, such as 10.0.0.0/8; the whole internet is none."
  }
}

variable "administrators" {
  description = "A Google group whose groups are Kubernetes' too: gke-security-groups@…"
  type        = string

  validation {
    condition     = startswith(var.administrators, "gke-security-groups@")
    error_message = "GKE takes groups only from one that is called gke-security-groups@YOUR-DOMAIN."
  }
}

variable "control_plane_cidr" {
  description = "A /28 that nobody has, for the control plane"
  type        = string
}

variable "node_type" {
  description = "Machine type of the nodes"
  type        = string
}

variable "nodes_per_zone" {
  description = "How many nodes a zone has at least and at most"
  type        = object({ min = number, max = number })

  validation {
    condition     = var.nodes_per_zone.min >= 1 && var.nodes_per_zone.min <= var.nodes_per_zone.max
    error_message = "1 <= min <= max."
  }
}

variable "protected" {
  description = "The cluster cannot be deleted"
  type        = bool
}
