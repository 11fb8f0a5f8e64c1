output "role_arns" {
  description = "The role of each service"
  value       = { for service, role in aws_iam_role.service : service => role.arn }
}
