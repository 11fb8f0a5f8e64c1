variable "bucket" {
  description = "The bucket's name, as `settings.env` of the environment's overlays names it"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts its objects"
  type        = string
}

variable "noncurrent_days" {
  description = "Days after which an object that was overwritten or deleted is gone for good"
  type        = number
  default     = 14
}

variable "deletable" {
  description = "Whether `tofu destroy` takes the objects with the bucket"
  type        = bool
}
