# The provider's real schema with made-up answers: no cluster is asked. tests/terraform applies it to a real one.
mock_provider "kustomization" {
  override_data {
    target = data.kustomization_overlay.installation
    values = {
      ids       = ["_/Namespace/_/argocd", "apps/Deployment/argocd/server"]
      ids_prio  = [["_/Namespace/_/argocd"], ["apps/Deployment/argocd/server"], []]
      manifests = { "_/Namespace/_/argocd" = "{}", "apps/Deployment/argocd/server" = "{}" }
    }
  }
  override_data {
    target = data.kustomization_overlay.root
    values = {
      ids       = ["argoproj.io/Application/argocd/plumbline"]
      ids_prio  = [[], ["argoproj.io/Application/argocd/plumbline"], []]
      manifests = { "argoproj.io/Application/argocd/plumbline" = "{}" }
    }
  }
}

variables {
  manifests    = "../../../k8s"
  installation = "install.yaml"
}

run "nothing_is_left_out" {
  assert {
    condition = (
      length(kustomization_resource.first) + length(kustomization_resource.then) + length(kustomization_resource.last)
      == output.objects
    )
    error_message = "an object of the installation was not applied"
  }
  assert {
    condition     = toset(keys(kustomization_resource.root)) == output.applications
    error_message = "the Application that brings all else was not applied"
  }
}

run "a_folder_without_the_root_is_refused" {
  command = plan
  variables { manifests = "../../../k8s/platform" }
  expect_failures = [var.manifests]
}
