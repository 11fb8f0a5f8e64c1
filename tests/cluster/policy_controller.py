"""Sigstore's policy-controller as its installation has it, on a port of this machine.

It knows no address to listen on, so it takes all of them, unlike all else here; what it serves is webhooks over TLS.
The API server finds it by the Service of the installation, which names this machine.
"""

from __future__ import annotations

from control_plane import eventually, kubeconfig
from kube import Kube, Object

from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from toolchain import cluster_binaries

NAMESPACE = "cosign-system"
SETTINGS = ("image-policies", "leader-election", "logging", "observability", "policy-controller", "sigstore-keys")
"""Its ConfigMaps, `config-…`; empty ones are its defaults, by which an image that no policy names is refused."""

INSTALLED = ("policy-webhooks.yaml", "policy-kinds-webhooks.yaml")
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"


def start(kube: Kube) -> None:
    """Starts it, on the port that it had, and returns when the API server can ask it."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in SETTINGS:
        about = {"name": f"config-{name}", "namespace": NAMESPACE}
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about})
    served: dict[str, object] = {"type": "ExternalName", "externalName": "localhost"}
    about = {"name": "webhook", "namespace": NAMESPACE}
    kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": served})
    before = kube.get(f"{WEBHOOKS}/validatingwebhookconfigurations/policy.sigstore.dev")
    port = before["webhooks"][0]["clientConfig"]["service"]["port"] if before else services.free_port()
    for made in _installed():
        for hook in made.get("webhooks", []):
            hook["clientConfig"]["service"]["port"] = port
        kube.apply(made)
    home = settings().home / "policy-controller"
    home.mkdir(exist_ok=True)
    metrics, profiling = services.free_port(), services.free_port()

    def command(port: int, _: str) -> list[str]:
        return [str(cluster_binaries.find("policy-controller")), "--disable-tuf"]

    def env(port: int, _: str) -> dict[str, str | None]:
        return {
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig()),
            "SYSTEM_NAMESPACE": NAMESPACE,
            "WEBHOOK_PORT": str(port),
            "PROFILING_PORT": str(profiling),
            "METRICS_DOMAIN": "sigstore.dev/policy",
            "METRICS_PROMETHEUS_HOST": HOST,
            "METRICS_PROMETHEUS_PORT": str(metrics),
        }

    services.ensure(
        services.Launch("policy-controller", command, lambda port, _: services.listening(port), env, port=port)
    )

    def vouched() -> bool:
        """Each configuration has the authority that it made for itself."""
        found = [kube.get(kube.path(made)) or {} for made in _installed() if "webhooks" in made]
        return all(made["webhooks"][0]["clientConfig"].get("caBundle") for made in found)

    eventually(vouched, 60, "policy-controller has given its webhooks an authority")


def stop() -> None:
    """Stops the process; the API server still asks for it."""
    services.stop("policy-controller", grace=5)


def remove(kube: Kube) -> None:
    """Stops it, and the API server asks for it no more."""
    for made in _installed():
        kube.delete(kube.path(made))
    stop()


def _installed() -> list[Object]:
    return [
        made
        for name in INSTALLED
        for made in cluster_binaries.documents((cluster_binaries.folder() / name).read_text())
    ]
