output "vpc_id" {
  description = "The network"
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "A private subnet a zone, in the order of `zones`"
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}
