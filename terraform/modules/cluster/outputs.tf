output "name" {
  description = "The cluster's name: `aws eks update-kubeconfig --name …`"
  value       = aws_eks_cluster.this.name
}

output "arn" {
  description = "The cluster"
  value       = aws_eks_cluster.this.arn
}

output "client_group_id" {
  description = "The security group of its nodes and pods"
  value       = one(aws_eks_cluster.this.vpc_config).cluster_security_group_id
}

output "protected" {
  description = "Whether it refuses to be deleted"
  value       = aws_eks_cluster.this.deletion_protection
}
