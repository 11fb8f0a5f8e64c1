"""The schemas that manifests are held against, as they are made of their makers' files, and what is refused there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolchain import manifest_tools
from toolchain.binaries import BinariesError

CRD = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.com",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "description": "long",
                        "properties": {
                            "spec": {
                                "properties": {
                                    "description": {"type": "string", "description": "a field of that name"},
                                    "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
                                    "any": {"x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}},
                                    "more": {"type": "object", "additionalProperties": {"properties": {"b": {}}}},
                                    "list": {"type": "array", "items": {"properties": {"c": {}}}},
                                }
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    return manifest_tools.folder()


def test_a_crd_becomes_a_closed_schema(tmp_path: Path) -> None:
    (tmp_path / "crds.yaml").write_text(yaml.safe_dump_all([None, {"kind": "Other"}, CRD]) + "---\nkind: x\nop: =\n")
    manifest_tools.write_crds(tmp_path / "crds.yaml", tmp_path / "to")
    (path,) = (tmp_path / "to").rglob("*.json")
    assert path == tmp_path / "to/example.com/thing_v1.json"
    made: dict[str, Any] = json.loads(path.read_text())
    spec = made["properties"]["spec"]
    assert made["additionalProperties"] is False and made["properties"]["metadata"] == {"type": "object"}
    assert "description" not in made and spec["properties"]["description"] == {"type": "string"}
    assert spec["additionalProperties"] is False and spec["properties"]["port"]["type"] == ["string", "integer"]
    assert "additionalProperties" not in spec["properties"]["any"]
    assert spec["properties"]["more"]["additionalProperties"]["additionalProperties"] is False
    assert spec["properties"]["list"]["items"]["additionalProperties"] is False


def test_a_kind_of_kubernetes_becomes_a_reference_into_all_definitions(tmp_path: Path) -> None:
    kinds = [{"group": "", "version": "v1", "kind": "Thing"}]
    definitions = {
        "io.k8s.api.core.v1.Thing": {"properties": {"a": {}}, "x-kubernetes-group-version-kind": kinds},
        "io.k8s.api.core.v1.Part": {"properties": {"b": {"description": "long"}}},
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
        "io.k8s.apiextensions.JSONSchemaProps": {"properties": {"c": {}}},
    }
    (tmp_path / "swagger.json").write_text(json.dumps({"definitions": definitions}))
    manifest_tools.write_native(tmp_path / "swagger.json", tmp_path / "to")
    made = json.loads((tmp_path / "to/v1/thing_v1.json").read_text())
    whole = tmp_path / "to/definitions.json"
    assert made == {"$ref": f"{whole.as_uri()}#/definitions/io.k8s.api.core.v1.Thing"}
    found = json.loads(whole.read_text())["definitions"]
    assert found["io.k8s.api.core.v1.Part"] == {"properties": {"b": {}}, "additionalProperties": False}
    assert found["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] == {"type": ["string", "integer", "number"]}
    assert "additionalProperties" not in found["io.k8s.apiextensions.JSONSchemaProps"]


def test_what_is_not_there_or_from_other_pins_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BinariesError, match="kustomize is not there, or older than is pinned: `make manifest-tools`"):
        manifest_tools.find("kustomize")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "kustomize").touch()
    (folder / "stamp").write_text(manifest_tools._pin())
    assert manifest_tools.find("kustomize") == folder / "bin" / "kustomize"
    monkeypatch.setitem(manifest_tools.KUBERNETES, "v1.99.0", "h1:another")
    with pytest.raises(BinariesError, match="older than is pinned"):
        manifest_tools.find("kustomize")


def test_a_module_that_is_not_the_pinned_one_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.dumps({"Sum": "h1:other", "Dir": "/nowhere"})
    go = folder.parent / "go"
    go.write_text(f"#!/bin/sh\n[ $1 = env ] && echo go1.26 || echo '{told}'\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder.parent))
    with pytest.raises(BinariesError, match=r"kustomize/v5@v5.8.1: expected h1:Pgsg5.*, found h1:other"):
        manifest_tools.build()
    assert manifest_tools.missing()


def test_a_go_that_fails_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = folder.parent / "go"
    go.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder.parent}:/bin:/usr/bin")
    with pytest.raises(BinariesError, match="ended with 1: no network"):
        manifest_tools.build()
