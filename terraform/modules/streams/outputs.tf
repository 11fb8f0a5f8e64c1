output "bootstrap_brokers" {
  description = "HOST:PORT of the brokers, for clients with TLS: kafkas://"
  value       = aws_msk_cluster.this.bootstrap_brokers_tls
}
