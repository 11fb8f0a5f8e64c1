output "arn" {
  description = "The role"
  value       = aws_iam_role.this.arn
}

output "service_accounts" {
  description = "Who takes it, as NAMESPACE/NAME"
  value       = [for made in aws_eks_pod_identity_association.this : "${made.namespace}/${made.service_account}"]
}

output "policy" {
  description = "What it may do, as JSON"
  value       = aws_iam_role_policy.this.policy
}
