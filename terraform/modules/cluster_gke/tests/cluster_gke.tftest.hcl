mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = { email = "node@plumbline.iam.gserviceaccount.com" }
  }
}

variables {
  name               = "plumbline-test"
  project            = "plumbline"
  region             = "europe-west3"
  network            = { id = "n", subnet_id = "s", pods_range = "pods", services_range = "services" }
  key_id             = "projects/plumbline/locations/europe-west3/keyRings/r/cryptoKeys/k"
  api_cidrs          = { office = "198.51.100.0/24" }
  administrators     = "gke-security-groups@example.com"
  control_plane_cidr = "172.16.0.0/28"
  node_type          = "n2-standard-4"
  nodes_per_zone     = { min = 1, max = 3 }
  protected          = true
}

run "the_api_server_is_reached_from_named_networks_inside" {
  assert {
    condition = (
      google_container_cluster.this.private_cluster_config[0].enable_private_endpoint == true &&
      google_container_cluster.this.private_cluster_config[0].enable_private_nodes == true &&
      one(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks).cidr_block == "198.51.100.0/24"
    )
    error_message = "neither it nor a node has a public address"
  }
  assert {
    condition = (
      google_container_cluster.this.database_encryption[0].state == "ENCRYPTED" &&
      google_container_cluster.this.database_encryption[0].key_name == var.key_id
    )
    error_message = "Secrets are encrypted by the key that was given"
  }
  assert {
    condition     = google_container_cluster.this.deletion_protection == true
    error_message = "protected, it cannot be deleted"
  }
}

run "a_pod_does_not_reach_its_node_s_credentials" {
  assert {
    condition     = google_container_node_pool.this.node_config[0].workload_metadata_config[0].mode == "GKE_METADATA"
    error_message = "a pod's own credentials come from GKE's metadata server"
  }
  assert {
    condition     = output.workload_pool == "plumbline.svc.id.goog"
    error_message = "they are Workload Identity's"
  }
  assert {
    condition     = google_container_cluster.this.datapath_provider == "ADVANCED_DATAPATH"
    error_message = "without it nothing enforces a NetworkPolicy"
  }
  assert {
    condition = alltrue([
      for member in google_project_iam_member.node :
      member.member == "serviceAccount:node@plumbline.iam.gserviceaccount.com" && !strcontains(member.role, "editor")
    ]) && google_container_node_pool.this.node_config[0].service_account == "node@plumbline.iam.gserviceaccount.com"
    error_message = "a node is an account of its own, which may next to nothing"
  }
}

run "the_internet_does_not_reach_the_api_server" {
  command = plan
  variables { api_cidrs = { all = "0.0.0.0/0" } }
  expect_failures = [var.api_cidrs]
}

run "a_version_that_no_manifest_was_held_against_is_refused" {
  command = plan
  variables { kubernetes = "1.30" }
  expect_failures = [var.kubernetes]
}

run "administrators_who_are_no_gke_group_are_refused" {
  command = plan
  variables { administrators = "platform@example.com" }
  expect_failures = [var.administrators]
}

run "fewer_nodes_at_most_than_at_least_are_refused" {
  command = plan
  variables { nodes_per_zone = { min = 3, max = 1 } }
  expect_failures = [var.nodes_per_zone]
}
