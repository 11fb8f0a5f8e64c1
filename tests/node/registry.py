"""Images by their real digests in a registry on loopback, Debian's docker-registry, and where manifests name them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from toolchain import images

MANIFESTS = {
    "plumbline/pipeline": "pipeline",
    "plumbline/airflow": "airflow",
    "plumbline/predictor": "predictor",
    "kserve/storage-initializer": "storage-initializer",
    "postgres": "postgres",
    "redis": "redis",
    "versity/versitygw": "s3",
    "apache/kafka": "kafka",
}
"""Image in the manifests → the image built here that stands for it."""

OWN = ("pause", "coredns")
"""What the node and its cluster need besides."""


def start() -> str:
    """Starts the registry, on the port that it had; its address."""
    folder = settings().home / "registry"
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int, _: str) -> list[str]:
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": f"{HOST}:{port}"},
            "log": {"level": "error", "accesslog": {"disabled": True}},
        }
        files.write_whole(folder / "config.yml", files.dumps(config))
        return ["docker-registry", "serve", str(folder / "config.yml")]

    before = files.read_json(folder / "address.json") or {}
    launch = services.Launch("registry", command, lambda port, _: services.listening(port), port=before.get("port"))
    port = services.ensure(launch).port
    files.write_whole(folder / "address.json", files.dumps({"port": port}))
    return f"{HOST}:{port}"


def stop() -> None:
    """Stops it; its images stay."""
    services.stop("registry", grace=5)


def push(address: str) -> dict[str, str]:
    """Pushes every image that is not there yet, and returns name here → name@digest as containerd pulls it."""
    found = {}
    for name in (*MANIFESTS.values(), *OWN):
        found[name] = f"{address}/plumbline/{name}@{images.pushed(name, f'{address}/plumbline/{name}')}"
    return found


def written(text: str, digests: dict[str, str]) -> str:
    """k8s/image-digests/kustomization.yaml with these digests, under the names that the registry has them by."""
    for wanted, name in MANIFESTS.items():
        place, _, digest = digests[name].partition("@")
        there = f"registry.example.com/{place.partition('/')[2]}"
        entry = re.compile(rf"(- name: {re.escape(wanted)}(?: .*)?\n  newName: )\S+(\n  digest: )\S+")
        text, count = entry.subn(rf"\g<1>{there}\g<2>{digest}", text)
        assert count == 1, f"{wanted} is named {count} times"
    return text


def gone(address: str) -> bool:
    """Whether nobody answers there."""
    try:
        return httpx.get(f"http://{address}/v2/", timeout=1).status_code >= 500
    except httpx.HTTPError:
        return True


def size() -> int:
    """Megabytes of the registry's folder."""
    place: Path = settings().home / "registry" / "data"
    return sum(found.stat().st_size for found in place.rglob("*") if found.is_file()) // 1_000_000
