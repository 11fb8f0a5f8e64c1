# The one thing that does not come from Git by itself: Argo CD, its settings, and the Application that brings all else.
# It tells the two apart: the Application is applied once its CRD is there.

locals {
  namespace = "argocd"
}

data "kustomization_overlay" "installation" {
  namespace = local.namespace
  resources = [abspath("${path.module}/namespace.yaml"), var.installation]

  patches {
    path = abspath("${var.manifests}/argocd/argocd-cm.yaml")
    target {
      kind = "ConfigMap"
      name = "argocd-cm"
    }
  }

  kustomize_options { load_restrictor = "none" }
}

resource "kustomization_resource" "first" {
  for_each = data.kustomization_overlay.installation.ids_prio[0]

  manifest = data.kustomization_overlay.installation.manifests[each.value]
}

resource "kustomization_resource" "then" {
  for_each = data.kustomization_overlay.installation.ids_prio[1]

  manifest   = data.kustomization_overlay.installation.manifests[each.value]
  depends_on = [kustomization_resource.first]
}

resource "kustomization_resource" "last" {
  for_each = data.kustomization_overlay.installation.ids_prio[2]

  manifest   = data.kustomization_overlay.installation.manifests[each.value]
  depends_on = [kustomization_resource.then]
}

data "kustomization_overlay" "root" {
  resources = [abspath("${var.manifests}/apps/root.yaml")]

  kustomize_options { load_restrictor = "none" }
}

resource "kustomization_resource" "root" {
  for_each = data.kustomization_overlay.root.ids

  manifest   = data.kustomization_overlay.root.manifests[each.value]
  depends_on = [kustomization_resource.last]
}
