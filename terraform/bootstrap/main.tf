# Once, for the cluster that Argo CD runs in: dev's, as k8s/apps says. From then on Git is applied, by Argo CD.
provider "kustomization" {
  kubeconfig_path = var.kubeconfig
  context         = var.context
}

module "argocd" {
  source = "../modules/argocd"

  manifests    = "${path.root}/../../k8s"
  installation = var.installation
}
