variable "account" {
  description = "The AWS account that keeps the state"
  type        = string
}
