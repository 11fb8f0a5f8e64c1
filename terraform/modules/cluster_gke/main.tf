# GKE, as modules/cluster is EKS: a private API server, encrypted Secrets, nodes that may next to nothing, NetworkPolicies
# that are enforced, and pods that get Google's access by Workload Identity.

resource "google_container_cluster" "this" {
  #checkov:skip=CKV_GCP_12:the advanced datapath enforces NetworkPolicies, and takes no `network_policy` beside it
  #checkov:skip=CKV_GCP_66:images are held by digest, by k8s/'s own admission policies
  name                = var.name
  project             = var.project
  location            = var.region
  min_master_version  = var.kubernetes
  deletion_protection = var.protected
  resource_labels     = { environment = var.name }

  network           = var.network.id
  subnetwork        = var.network.subnet_id
  networking_mode   = "VPC_NATIVE"
  datapath_provider = "ADVANCED_DATAPATH" # enforces NetworkPolicies

  enable_shielded_nodes       = true
  enable_intranode_visibility = true
  enable_legacy_abac          = false

  # The pool of ours stands beside it: this one is made and removed at once.
  remove_default_node_pool = true
  initial_node_count       = 1

  node_config {
    service_account = google_service_account.node.email
    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config { mode = "GKE_METADATA" }
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = var.network.pods_range
    services_secondary_range_name = var.network.services_range
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = true
    master_ipv4_cidr_block  = var.control_plane_cidr
  }

  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.api_cidrs
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }

  master_auth {
    client_certificate_config { issue_client_certificate = false }
  }

  authenticator_groups_config { security_group = var.administrators }

  database_encryption {
    state    = "ENCRYPTED"
    key_name = var.key_id
  }

  workload_identity_config { workload_pool = "${var.project}.svc.id.goog" }

  release_channel { channel = "STABLE" }

  logging_config { enable_components = ["SYSTEM_COMPONENTS", "APISERVER", "CONTROLLER_MANAGER", "SCHEDULER", "WORKLOADS"] }
}

resource "google_container_node_pool" "this" {
  name     = "${var.name}-nodes"
  project  = var.project
  cluster  = google_container_cluster.this.name
  location = var.region

  autoscaling {
    min_node_count = var.nodes_per_zone.min
    max_node_count = var.nodes_per_zone.max
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }

  node_config {
    machine_type      = var.node_type
    image_type        = "COS_CONTAINERD"
    disk_type         = "pd-balanced"
    disk_size_gb      = 100
    boot_disk_kms_key = var.key_id
    service_account   = google_service_account.node.email
    oauth_scopes      = ["https://www.googleapis.com/auth/cloud-platform"]
    metadata          = { disable-legacy-endpoints = "true" }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    # A pod asks GKE's metadata server, which knows its service account, and not the node's.
    workload_metadata_config { mode = "GKE_METADATA" }
  }
}

resource "google_service_account" "node" {
  project      = var.project
  account_id   = "${var.name}-node"
  display_name = "Nodes of ${var.name}: they log, measure and pull images"
}

resource "google_project_iam_member" "node" {
  for_each = toset(["roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/artifactregistry.reader"])

  project = var.project
  role    = each.key
  member  = "serviceAccount:${google_service_account.node.email}"
}
