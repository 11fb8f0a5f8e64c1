"""What checks and applies terraform/: OpenTofu, the provider of kustomizations, Argo CD's manifests, clouds' schemas.

`make tofu-tools` compiles the first two from pinned Go modules into PLUMBLINE_CACHE/tofu. The clouds' providers are
not compiled: toolchain/provider_schema.py reads their schemas out of their makers' bindings, and
toolchain/schema_provider.py serves them. That is enough for `tofu validate`, and for `tofu test` with mocked resources.
Nothing here reaches a cloud.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plumbline import files
from plumbline.settings import ENVIRONMENTS, ROOT
from toolchain import binaries, cluster_binaries, provider_schema
from toolchain.binaries import BinariesError
from toolchain.go_modules import Go

PROGRAMS = {
    "tofu": (
        "github.com/opentofu/opentofu",
        "v1.12.6",
        "h1:0VT4P8pMmGcCUnQ9JDrJ+Qg2d35Vzm4FFd/9+H7oF98=",
        "./cmd/tofu",
        "-X github.com/opentofu/opentofu/version.dev=no",
    ),
    "kustomization": (
        "github.com/kbst/terraform-provider-kustomize",
        "v0.9.8",
        "h1:23LssAqsgJgCA2cpq0W359abwFnMpswq24tpUY49YFI=",
        ".",
        "",
    ),
}
"""Each program's module, version, checksum (Go's own), command in the module, and linker flags."""

UNOPTIMISED = (
    "k8s.io/...",
    "sigs.k8s.io/...",
    "github.com/aws/...",
    "github.com/Azure/...",
    "google.golang.org/api/...",
)
"""Compiled without optimisation, which takes less time: clients of clouds and clusters, which wait for the network."""

ARGOCD = "github.com/argoproj/argo-cd/v3"
FETCHED = ("bindings", "argocd")
SCHEMAS = ("aws", "google")
"""The providers of which there is a schema alone."""

REQUIRED = """terraform {
  required_providers {
    aws           = { source = "hashicorp/aws" }
    google        = { source = "hashicorp/google" }
    kustomization = { source = "kbst/kustomization" }
  }
}
"""

BINDINGS = ROOT / "requirements" / "provider-bindings.txt"
TERRAFORM = ROOT / "terraform"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
PLATFORM = f"{sys.platform}_{_MACHINES.get(platform.machine(), platform.machine())}"
USED = re.compile(r'^\s*(?:mock_)?(resource|data) "((?:aws|google)_\w+)"', re.M)


def folder() -> Path:
    """Where the programs (`bin/`), the bindings and the mirror of providers lie."""
    return binaries.folder().parent / "tofu"


def find() -> Path:
    """OpenTofu. Raises BinariesError when something lacks."""
    if lacking := missing():
        raise BinariesError(f"{', '.join(lacking)}: not built, or older than is pinned; `make tofu-tools` builds them")
    return folder() / "bin" / "tofu"


def installation() -> Path:
    """Argo CD's own manifests, of the version whose CRDs the cluster tests have."""
    return folder() / "argocd-install.yaml"


def missing() -> list[str]:
    """What lacks, or was made from other versions than are pinned here."""
    return [name for name in (*PROGRAMS, *FETCHED) if not _stamped(name)]


def build() -> None:
    """Builds what lacks. Killed half way, it goes on where it was. Raises BinariesError."""
    for made in ("bin", "stamps"):
        (folder() / made).mkdir(parents=True, exist_ok=True)
    for name in missing():
        begun = time.monotonic()
        print(f"  · {'fetching' if name in FETCHED else 'building'} {name}", flush=True)
        if name == "bindings":
            _fetch_bindings()
        elif name == "argocd":
            source = Go(folder() / "build").module(ARGOCD, *cluster_binaries.MODULES[ARGOCD])
            files.write_whole(installation(), (source / "manifests" / "install.yaml").read_text())
        else:
            _compile(name)
        files.write_whole(folder() / "stamps" / name, _pin(name))
        print(f"    {name}: {time.monotonic() - begun:.0f} s", flush=True)
    shutil.rmtree(folder() / "build", ignore_errors=True)


class Workspace:
    """A copy of terraform/ in which OpenTofu runs: what it writes beside the files does not come into the tree."""

    def __init__(self, folder: Path) -> None:
        """Copies terraform/, and makes a mirror of the providers beside it. Raises BinariesError when a tool lacks."""
        self.folder = folder
        self.program = find()
        shutil.rmtree(folder, ignore_errors=True)
        left = shutil.ignore_patterns(".terraform", "*.tfstate*")
        shutil.copytree(TERRAFORM, folder / "terraform", ignore=left)
        (folder / "k8s").symlink_to(ROOT / "k8s")
        choice = folder / "tofurc"
        choice.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{folder}/mirror" }}\n}}\n')
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
        self.environment = inherited | {
            "TF_CLI_CONFIG_FILE": str(choice),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "TF_DISABLE_PLUGIN_TLS": "1",  # between OpenTofu and the schema's provider, on loopback
            "AWS_EC2_METADATA_DISABLED": "true",
            "CHECKPOINT_DISABLE": "1",
        }
        self._mirror()

    def roots(self) -> list[Path]:
        """Each folder that OpenTofu can be run in: modules, environments and the rest."""
        return sorted({path.parent for path in (self.folder / "terraform").rglob("*.tf")})

    def run(self, where: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`tofu ARGUMENTS` in a folder, with further variables of the environment."""
        command = [str(self.program), *arguments]
        given = {**self.environment, **more}
        return subprocess.run(command, cwd=where, env=given, capture_output=True, text=True, check=False)

    def _mirror(self) -> None:
        """The providers, where OpenTofu looks for them below the host that it takes for theirs."""
        asked = self.folder / "asked"
        asked.mkdir()
        (asked / "main.tf").write_text(REQUIRED)
        told = self.run(asked, "providers", "-no-color").stdout
        hosts = {name: host for host, name in re.findall(r"provider\[([^/\]]+)/([^\]]+)\]", told)}
        texts = [path.read_text() for path in self.folder.glob("terraform/**/*.t*") if path.is_file()]
        used = {found for text in texts for found in USED.findall(text)}
        version = PROGRAMS["kustomization"][1].removeprefix("v")
        self._provider(hosts, "kbst/kustomization", version).symlink_to(folder() / "bin" / "kustomization")
        for name in SCHEMAS:
            wanted = frozenset((kind, resource) for kind, resource in used if resource.startswith(f"{name}_"))
            version, answer = _schema(folder() / "bindings" / f"{name}.tgz", name, wanted)
            kept = self.folder / f"{name}.schema"
            kept.write_bytes(answer)
            served = shlex.join([sys.executable, "-m", "toolchain.schema_provider", str(kept)])
            provider = self._provider(hosts, f"hashicorp/{name}", version)
            provider.write_text(f"#!/bin/sh\nexec {served}\n")
            provider.chmod(0o755)

    def _provider(self, hosts: dict[str, str], name: str, version: str) -> Path:
        """Where OpenTofu looks for a provider's program."""
        if name not in hosts:
            raise BinariesError(f"`tofu providers` names {', '.join(sorted(hosts)) or 'none'}, expected {name} too")
        place = self.folder / "mirror" / hosts[name] / name / version / PLATFORM
        place.mkdir(parents=True)
        return place / f"terraform-provider-{name.rpartition('/')[2]}_v{version}"


@functools.cache
def _schema(archive: Path, name: str, wanted: frozenset[tuple[str, str]]) -> tuple[str, bytes]:
    """A provider's version, and its schema as it is served: read once a process, which takes seconds."""
    schema = provider_schema.read(archive, name, wanted)
    return schema["version"], provider_schema.encoded(schema)


def _compile(name: str) -> None:
    module, version, checksum, command, link = PROGRAMS[name]
    go = Go(folder() / "build")
    work = go.build / name
    shutil.rmtree(work, ignore_errors=True)
    # As the main module, since its own `replace` lines hold in no other.
    shutil.copytree(go.module(module, version, checksum), work)
    made = go.build / f"{name}.made"
    plain = [f"-gcflags={pattern}=-N -l" for pattern in UNOPTIMISED]
    go.run(["build", "-trimpath", *plain, f"-ldflags=-s -w {link}".rstrip(), "-o", str(made), command], work)
    made.replace(folder() / "bin" / name)


def _fetch_bindings() -> None:
    """The archives of the bindings' sources, out of the wheels that carry them."""
    with tempfile.TemporaryDirectory(dir=folder()) as scratch:
        uv = ENVIRONMENTS.parent / "tools" / "bin" / "uv"
        command = [str(uv), "pip", "install", "--quiet", "--no-cache", "--no-deps", "--target", scratch]
        command += ["--require-hashes", "--requirements", str(BINDINGS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BinariesError(f"{BINDINGS.name} cannot be had: {done.stderr.strip()[-400:]}")
        (folder() / "bindings").mkdir(exist_ok=True)
        for name in SCHEMAS:
            (archive,) = Path(scratch).rglob(f"provider-{name}@*.jsii.tgz")
            archive.replace(folder() / "bindings" / f"{name}.tgz")


def _pin(name: str) -> str:
    made_of: dict[str, object] = {"bindings": BINDINGS.read_text(), "argocd": cluster_binaries.MODULES[ARGOCD]}
    return hashlib.sha256(json.dumps(made_of.get(name) or [PROGRAMS[name], UNOPTIMISED]).encode()).hexdigest()


def _stamped(name: str) -> bool:
    stamp = folder() / "stamps" / name
    return stamp.exists() and stamp.read_text() == _pin(name)


def main() -> None:
    """Builds what lacks; exit code 1 with the reason when it cannot be built."""
    try:
        build()
    except BinariesError as error:
        sys.exit(f"tofu-tools: {error}")


if __name__ == "__main__":
    main()
