variable "name" {
  description = "The bucket's name"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts its objects"
  type        = string
}

variable "noncurrent_days" {
  description = "Days after which an object that was overwritten or deleted is gone for good"
  type        = number

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 30
    error_message = "1 to 30 days: an erased person's rows stay in the bucket for that long."
  }
}

variable "statements" {
  description = "Statements that the bucket's policy has besides the one that refuses requests without TLS"
  type        = any
  default     = []
}

variable "deletable" {
  description = "Whether `tofu destroy` takes the objects with the bucket"
  type        = bool
}
