"""A real control plane on loopback: etcd, API server, controllers of Kubernetes, Argo Rollouts and KServe.

Everything listens on a free port of 127.0.0.1 and in a session of its own, by `services`: its record and log
lie in the home, and `stop` leaves no process behind. The API server's token is random.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kube import Kube

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from toolchain import cluster_binaries, manifests

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "disruption-controller",
    "job-controller",
)
UNUSED = tuple(
    f"{kind}.monitoring.coreos.com"
    for kind in (
        "alertmanagerconfigs",
        "alertmanagers",
        "prometheusagents",
        "prometheuses",
        "scrapeconfigs",
        "thanosrulers",
    )
)
"""CRDs of the Prometheus operator that nothing here is one of, and that take seconds to install."""

NODE = "stand-in"
ORDER = ("kserve", "rollouts", "kcm", "apiserver", "etcd")
"""Who is stopped after whom."""


def start(platform: bool = True, controllers: Sequence[str] = CONTROLLERS) -> Kube:
    """Starts all of it and returns a client of its API server, some 10 s later. The CRDs are installed.

    Without `platform` it has what is installed by others, and nothing of ours.
    """
    kube = start_api_server()
    install_crds(kube)
    start_kcm(controllers)
    node = {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}
    kube.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}}
    )
    kube.patch(f"/api/v1/nodes/{NODE}/status", {"status": {**node, "capacity": node["allocatable"]}})
    install_kserve(kube)
    if platform:
        install_platform(kube)
    start_rollouts()
    start_kserve(kube)
    return kube


def start_api_server(address: str = HOST, port: int | None = None, more: Sequence[str] = ()) -> Kube:
    """Starts etcd and the API server alone, writes `kubeconfig()` and returns a client. It has nothing but its own.

    A real node's pods reach it at `address`; `more` are arguments of the API server's beside ours.
    """
    home = settings().home
    pki = home / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    peer = services.free_port()
    etcd = services.ensure(services.Launch("etcd", lambda port, _: _etcd(port, peer), lambda port, _: _listens(port)))
    if not (pki / "sa.pub").exists():  # a control plane that starts again trusts whom it trusted
        files.write_whole(pki / "tokens.csv", f"{secrets.token_urlsafe(24)},admin,admin,system:masters\n", mode=0o600)
        _run("openssl", "genrsa", "-out", str(pki / "sa.key"), "2048")
        _run("openssl", "rsa", "-in", str(pki / "sa.key"), "-pubout", "-out", str(pki / "sa.pub"))
    token = (pki / "tokens.csv").read_text().partition(",")[0]
    authority = pki / "apiserver.crt"

    def ready(port: int, _: str) -> bool:
        return _ready(f"https://{address}:{port}", token, authority)

    def command(port: int, _: str) -> list[str]:
        return [*_apiserver(port, etcd.port, address), *more]

    served = services.ensure(services.Launch("apiserver", command, ready, port=port))
    kube = Kube(f"https://{address}:{served.port}", token, authority)
    files.write_whole(kubeconfig(), _kubeconfig(kube), mode=0o600)
    return kube


def stop() -> None:
    """Stops all of it."""
    for name in ORDER:
        services.stop(name, grace=5)


def kubeconfig() -> Path:
    """For `kubectl` and the controllers."""
    return settings().home / "kubeconfig"


def eventually(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer. Fails with what was waited for and the last answer when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s, still {answer!r}"
        time.sleep(0.1)
    return answer


def install_crds(kube: Kube) -> None:
    """The CRDs of all that is installed by others; returns when they are served."""
    wanted = [
        json.loads(path.read_text())
        for path in sorted((cluster_binaries.folder() / "crds").iterdir())
        if path.stem.partition("-")[2] not in UNUSED
    ]
    for crd in wanted:
        crd["spec"].pop("conversion", None)  # nobody here converts: a list by another version would fail, as Argo CD's
    names = {crd["metadata"]["name"] for crd in wanted}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(kube.create, wanted))

    def established() -> bool:
        found = kube.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        served = {
            crd["metadata"]["name"]
            for crd in found
            for condition in crd.get("status", {}).get("conditions") or []
            if condition["type"] == "Established" and condition["status"] == "True"
        }
        return names <= served

    eventually(established, 60, "CRDs are established")


def install_kserve(kube: Kube) -> None:
    """The namespaces of what is installed by others, and KServe's settings as its installation brings them."""
    for name in ("kserve", "monitoring"):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for installed in cluster_binaries.documents((cluster_binaries.folder() / "kserve-config.yaml").read_text()):
        kube.apply(installed, manager="installation")


def install_platform(kube: Kube) -> None:
    """What Argo CD applies once a cluster."""
    for wanted in sorted(manifests.objects("k8s/platform"), key=lambda found: found["kind"] != "Namespace"):
        kube.apply(wanted)


def start_kcm(controllers: Sequence[str] = CONTROLLERS) -> None:
    """Kubernetes' own controllers; by default those that a rollout needs."""
    pki = settings().home / "pki"

    def command(port: int, _: str) -> list[str]:
        return [
            str(cluster_binaries.find("kube-controller-manager")),
            f"--kubeconfig={kubeconfig()}",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--cert-dir={pki}",
            "--use-service-account-credentials=false",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'apiserver.crt'}",
            f"--controllers={','.join(controllers)}",
        ]

    services.ensure(services.Launch("kcm", command, lambda port, _: services.listening(port)))


def start_rollouts() -> None:
    """Argo Rollouts' controller. It goes on where it was when it is started again."""
    health = services.free_port()

    def command(port: int, _: str) -> list[str]:
        return [
            str(cluster_binaries.find("rollouts-controller")),
            f"--kubeconfig={kubeconfig()}",
            "--leader-elect=false",
            f"--metricsport={port}",
            f"--healthzPort={health}",
            "--loglevel=info",
        ]

    services.ensure(services.Launch("rollouts", command, lambda port, _: services.listening(port)))


def start_kserve(kube: Kube) -> None:
    """KServe's controller with its webhooks, without which a pod gets no model."""
    certificates = settings().home / "kserve" / "k8s-webhook-server" / "serving-certs"
    certificates.mkdir(parents=True, exist_ok=True)
    key, certificate = certificates / "tls.key", certificates / "tls.crt"
    if not certificate.exists():
        _run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kserve-webhook"),
            *("-keyout", str(key), "-out", str(certificate), "-addext", f"subjectAltName=IP:{HOST}"),
        )
    metrics, health = services.free_port(), services.free_port()

    def command(port: int, _: str) -> list[str]:
        return [
            str(cluster_binaries.find("kserve-manager")),
            f"--metrics-addr={HOST}:{metrics}",
            f"--health-probe-addr={HOST}:{health}",
            f"--webhook-port={port}",
        ]

    def env(port: int, _: str) -> dict[str, str | None]:
        return {"KUBECONFIG": str(kubeconfig()), "POD_NAMESPACE": "kserve", "TMPDIR": str(settings().home / "kserve")}

    def ready(port: int, _: str) -> bool:
        return services.answers(f"http://{HOST}:{health}/readyz", 1)

    before = services.find("kserve")
    manager = services.ensure(services.Launch("kserve", command, ready, env, port=before.port if before else None))
    authority = base64.b64encode(certificate.read_bytes()).decode()
    for webhooks in cluster_binaries.documents((cluster_binaries.folder() / "kserve-webhooks.yaml").read_text()):
        if webhooks["metadata"]["name"].startswith("localmodelcache"):
            continue
        webhooks["metadata"].pop("creationTimestamp", None)
        for hook in webhooks["webhooks"]:
            where = hook["clientConfig"]["service"]["path"]
            hook["clientConfig"] = {"url": f"https://{HOST}:{manager.port}{where}", "caBundle": authority}
            if hook["name"].count(".") < 2:
                hook["name"] += ".local"
        kube.apply(webhooks)


def _etcd(port: int, peer: int) -> list[str]:
    own, peers = f"http://{HOST}:{port}", f"http://{HOST}:{peer}"
    return [
        *(str(cluster_binaries.find("etcd")), "--data-dir", str(settings().home / "etcd")),
        *("--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peers),
        *("--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}", "--unsafe-no-fsync"),
    ]


def _apiserver(port: int, etcd: int, address: str) -> list[str]:
    pki = settings().home / "pki"
    return [
        str(cluster_binaries.find("kube-apiserver")),
        f"--etcd-servers=http://{HOST}:{etcd}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={pki}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        *(["--endpoint-reconciler-type=none"] if address == HOST else []),
    ]


def _kubeconfig(kube: Kube) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": kube.url, "certificate-authority": str(kube.authority)}}],
            "users": [{"name": "u", "user": {"token": kube.token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def _listens(port: int) -> bool:
    return services.listening(port)


def _ready(url: str, token: str, authority: Path) -> bool:
    try:
        kube = Kube(url, token, authority)
    except OSError:  # its certificate is not there yet, or half of it
        return False
    try:
        return kube.ready()
    finally:
        kube.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RANDFILE": "/dev/null"})
