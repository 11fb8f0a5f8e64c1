"""A real Argo CD on loopback: Redis, repo-server, application controller and ApplicationSet controller.

Not started: its API server, which people and webhooks talk to. So `refresh` stands for the Git host's webhook, and
without it a commit is found within POLL seconds. What runs here syncs to the cluster of a kubeconfig, which its
Applications call https://kubernetes.default.svc. The application controller's metrics listen on all addresses: it has
no flag for that.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from plumbline import files
from plumbline.servers import online_store, services
from plumbline.servers.services import HOST
from plumbline.settings import ROOT, settings
from toolchain import cluster_binaries, manifest_tools

if TYPE_CHECKING:
    from kube import Kube

NAMESPACE = "argocd"
APPLICATIONS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/applications"
POLL = 10
"""Seconds after which Argo CD asks Git and the cluster again; 120 to 180 in an installation."""

REDIS, REPO, CONTROLLER, SETS = (
    "argocd-redis",
    "argocd-repo-server",
    "argocd-application-controller",
    "argocd-applicationset-controller",
)
CONFIG_MAPS = ("rbac-cm", "cmd-params-cm", "ssh-known-hosts-cm", "tls-certs-cm", "gpg-keys-cm")


@dataclass(frozen=True)
class Application:
    """What Argo CD says of an Application: Synced, Healthy, … and the commit that it looked at."""

    sync: str
    health: str
    revision: str
    operation: str
    """The phase of the newest sync: Running, Succeeded, Failed, Error; empty before the first."""
    message: str
    """Of that sync, and of the conditions: why it failed, why none was begun."""
    wrong: dict[str, str]
    """The resources that are not Healthy, `Kind/name`: what they say."""


def install(kube: Kube) -> None:
    """What an installation has besides CRDs and servers, and over it the patch that docs/deploy.md names."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    about = {"namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "argocd"}}  # it sees no others
    patch = yaml.safe_load((ROOT / "k8s" / "argocd" / "argocd-cm.yaml").read_text())["data"]
    config: dict[str, dict[str, str]] = {"argocd-cm": patch, **{f"argocd-{name}": {} for name in CONFIG_MAPS}}
    for name, data in config.items():
        _install(kube, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **about}, "data": data})
    key = {"server.secretkey": secrets.token_urlsafe(32)}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", **about}, "stringData": key}
    _install(kube, secret)
    spec = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    project = {"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "spec": spec}
    _install(kube, {**project, "metadata": {"name": "default", "namespace": NAMESPACE}})


def start(kubeconfig: Path) -> None:
    """Starts all four, and returns when they listen. CRDs and `install` come first."""
    home = settings().home / "argocd"
    for name in ("ssh", "tls", "gpg", "app", "tmp"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "ssh" / "ssh_known_hosts").touch()
    redis = services.ensure(services.Launch(REDIS, _redis, lambda port, _: services.listening(port)))
    env = {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "PATH": f"{manifest_tools.find('kustomize').parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "REDIS_PASSWORD": redis.token,
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_SSH_DATA_PATH": str(home / "ssh"),
        "ARGOCD_TLS_DATA_PATH": str(home / "tls"),
        "ARGOCD_APP_CONF_PATH": str(home / "app"),
        "ARGOCD_ASK_PASS_SOCK": str(home / "ask.sock"),
        "ARGOCD_PLUGINSOCKFILEPATH": str(home / "plugins"),
        "ARGOCD_CONTROLLER_SHARD": "0",
        "ARGOCD_K8S_CLIENT_QPS": "200",
        "ARGOCD_K8S_CLIENT_BURST": "400",
        "ARGOCD_RECONCILIATION_TIMEOUT": f"{POLL}s",
        "ARGOCD_RECONCILIATION_JITTER": "0",
        "ARGOCD_DEFAULT_CACHE_EXPIRATION": f"{POLL}s",
    }
    cached, cluster = f"--redis={HOST}:{redis.port}", [f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}"]
    bound = [cached, f"--address={HOST}", f"--metrics-address={HOST}", "--metrics-port={other}"]
    asked = ["--disable-tls", "--parallelismlimit=2", "--revision-cache-expiration=5s"]
    repo = f"{HOST}:{_start(REPO, env, [*bound, *asked, '--port={port}'])}"
    work = [f"--app-resync={POLL}", "--persist-resource-health", "--status-processors=4", "--operation-processors=4"]
    asks = [f"--repo-server={repo}", "--repo-server-plaintext"]
    _start(CONTROLLER, env, [*cluster, cached, *asks, *work, "--metrics-port={port}"])
    asks = [f"--argocd-repo-server={repo}", "--repo-server-plaintext", "--enable-leader-election=false"]
    bound = [
        f"--metrics-addr={HOST}:0",
        f"--webhook-addr={HOST}:{{other}}",
        f"--probe-addr={HOST}:{{port}}",
    ]
    _start(SETS, env, [*cluster, *asks, *bound])


def stop() -> None:
    """Stops all of it."""
    for name in (SETS, CONTROLLER, REPO, REDIS):
        services.stop(name, grace=5)


def applications(kube: Kube) -> dict[str, Application]:
    """All Applications by their names, as they are now."""
    return {found["metadata"]["name"]: _application(found) for found in kube.items(APPLICATIONS)}


def refresh(kube: Kube, name: str) -> None:
    """Makes Argo CD ask Git at once, as the Git host's webhook does."""
    kube.patch(f"{APPLICATIONS}/{name}", {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}})


def _application(found: dict[str, Any]) -> Application:
    status = found.get("status", {})
    sync, operation = status.get("sync", {}), status.get("operationState", {})
    messages = [operation.get("message", ""), *(each["message"] for each in status.get("conditions", []))]
    failed = operation.get("syncResult", {}).get("resources", [])
    messages += [each.get("message", "") for each in failed if each.get("status") == "SyncFailed"]
    health = {f"{each['kind']}/{each['name']}": each.get("health", {}) for each in status.get("resources", [])}
    return Application(
        sync.get("status", ""),
        status.get("health", {}).get("status", ""),
        sync.get("revision", ""),
        operation.get("phase", ""),
        " | ".join(dict.fromkeys(filter(None, messages))),
        {
            name: f"{each['status']} {each.get('message', '')}".strip()
            for name, each in health.items()
            if each.get("status", "Healthy") != "Healthy"
        },
    )


def _install(kube: Kube, wanted: dict[str, Any]) -> None:
    kube.apply(wanted, manager="installation")


def _start(name: str, env: dict[str, str], flags: list[str]) -> int:
    """Starts one of Argo CD's servers and returns its port, which stands in a flag as {port}; {other} is another."""

    def command(port: int, _: str) -> list[str]:
        other = next(free for free in iter(services.free_port, None) if free != port)
        given = [flag.replace("{port}", str(port)).replace("{other}", str(other)) for flag in flags]
        return [str(cluster_binaries.find("argocd")), "--logformat=text", *given]

    def told(_port: int, _token: str) -> dict[str, str | None]:
        return {**env, "ARGOCD_BINARY_NAME": name}

    return services.ensure(services.Launch(name, command, lambda port, _: services.listening(port), told)).port


def _redis(port: int, token: str) -> list[str]:
    conf = settings().home / "argocd" / "redis.conf"
    lines = [f"bind {HOST}", f"port {port}", f"requirepass {token}", 'save ""', "daemonize no"]
    files.write_whole(conf, "\n".join(lines) + "\n", mode=0o600)
    return [str(online_store._binary()), str(conf)]
