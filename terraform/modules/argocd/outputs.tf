output "objects" {
  description = "How many objects Argo CD's installation has"
  value       = length(data.kustomization_overlay.installation.ids)
}

output "applications" {
  description = "What Argo CD begins with"
  value       = data.kustomization_overlay.root.ids
}
