variable "bucket" {
  description = "The environment's bucket"
  type        = string
}

variable "key_arn" {
  description = "The key that encrypts its objects"
  type        = string
}
