"""A cluster of one real node, as one is given to us: control plane, names, volumes, controllers. Nothing of ours is in.

PYTHONPATH=tests/cluster python tests/node/cluster.py up      starts it in PLUMBLINE_HOME
PYTHONPATH=tests/cluster python tests/node/cluster.py down    stops it; `--all` removes what it kept too
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import control_plane
import node
import registry
from control_plane import eventually
from kube import Kube, Object

from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from toolchain import cluster_binaries

PORT = 6443
SYSTEM = "kube-system"
VOLUMES = ("1Gi", "2Gi", "5Gi", "10Gi")
"""Persistent volumes that are there to be claimed, one of each size, so that a claim finds the same one again."""

COREFILE = """.:53 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa {
        pods verified
    }
    forward . /etc/resolv.conf
    cache 30
}
"""


def up() -> tuple[Kube, dict[str, str]]:
    """Starts all of it; a client of its API server, and the digests of the images that its registry has."""
    node.bridge()
    address = registry.start()
    digests = registry.push(address)
    pki = settings().home / "pki"
    kube = control_plane.start_api_server(node.ADDRESS, PORT, node.kubelet_arguments(pki))
    control_plane.install_crds(kube)
    control_plane.start_kcm(["*"])
    start_scheduler()
    node.start(control_plane.kubeconfig(), digests["pause"], address)
    eventually(lambda: ready(kube), 60, "the node is Ready")
    names(kube, digests["coredns"])
    volumes(kube)
    control_plane.install_kserve(kube)
    control_plane.start_rollouts()
    control_plane.start_kserve(kube)
    node.start_policies(control_plane.kubeconfig())
    return kube, digests


def down() -> None:
    """Stops all of it; what its volumes, registry and etcd keep stays."""
    for name in ("kserve", "rollouts", "scheduler", "kcm"):
        services.stop(name, grace=5)
    node.stop()
    for name in ("apiserver", "etcd"):
        services.stop(name, grace=5)
    registry.stop()


def start_scheduler() -> None:
    """Kubernetes' own scheduler."""

    def command(port: int, _: str) -> list[str]:
        return [
            str(cluster_binaries.find("kube-scheduler")),
            f"--kubeconfig={control_plane.kubeconfig()}",
            f"--authentication-kubeconfig={control_plane.kubeconfig()}",
            f"--authorization-kubeconfig={control_plane.kubeconfig()}",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--cert-dir={settings().home / 'pki'}",
        ]

    services.ensure(services.Launch("scheduler", command, lambda port, _: services.listening(port)))


def ready(kube: Kube) -> bool:
    """Whether the node says Ready."""
    found = kube.get(f"/api/v1/nodes/{node.NAME}")
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(told["type"] == "Ready" and told["status"] == "True" for told in conditions)


def names(kube: Kube, image: str) -> None:
    """CoreDNS, at the address that the kubelet tells every pod."""
    for wanted in _names(image):
        kube.apply(wanted, manager="installation")


def volumes(kube: Kube) -> None:
    """Folders of this machine that claims may bind."""
    for size in VOLUMES:
        name = size.lower()
        folder = settings().home / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        wanted = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
            },
        }
        kube.apply(wanted, manager="installation")


def _names(image: str) -> list[Object]:
    about = {"name": "coredns", "namespace": SYSTEM}
    labels = {"k8s-app": "kube-dns"}
    probe = {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 5}
    pod: dict[str, Any] = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [
            {
                "name": "coredns",
                "image": image,
                "args": ["-conf", "/etc/coredns/Corefile"],
                "readinessProbe": probe,
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                },
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
    }
    reads: list[dict[str, Any]] = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": reads},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "coredns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"kind": "ServiceAccount", **about}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": about,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": SYSTEM},
            "spec": {
                "clusterIP": node.DNS,
                "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        },
    ]


def main() -> None:
    """`up` or `down`, as the module says."""
    if sys.argv[1:] == ["up"]:
        _, digests = up()
        print(json.dumps({"kubeconfig": str(control_plane.kubeconfig()), "images": digests}, indent=1))
    elif sys.argv[1:2] == ["down"] and set(sys.argv[2:]) <= {"--all"}:
        down()
        if "--all" in sys.argv:
            shutil.rmtree(settings().home)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
