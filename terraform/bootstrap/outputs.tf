output "objects" {
  description = "How many objects Argo CD's installation has"
  value       = module.argocd.objects
}

output "applications" {
  description = "What Argo CD begins with"
  value       = module.argocd.applications
}
