"""A development cluster's Secrets: every one that a manifest names is made, and nothing that nobody asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from tests.k8s.rendered import secrets_asked
from toolchain import cluster_secrets, compose, manifests

DEV = [path for path in manifests.OVERLAYS if path.endswith("/dev")]


@pytest.fixture
def known(tmp_path: Path) -> dict[str, str]:
    compose.write_secrets(tmp_path / ".env")
    return compose.read_secrets(tmp_path / ".env")


def test_whatever_a_development_manifest_names_is_made(known: dict[str, str]) -> None:
    made = cluster_secrets.secrets(known)
    named: set[tuple[str, str]] = set()
    for path in DEV:
        for found in manifests.objects(path):
            if found["kind"] == "Namespace":
                continue
            namespace = found["metadata"]["namespace"]
            for secret, key in secrets_asked(found):
                assert secret in made[namespace], f"{path}: {found['kind']} {found['metadata']['name']} asks {secret}"
                assert key is None or key in made[namespace][secret]
                named.add((namespace, secret))
    told = {(namespace, secret) for namespace, of in made.items() for secret in of}
    # `spark` is optional (there may be a workload identity), `kafka` is where a stream is, prod has the champion.
    left = {(namespace, secret) for namespace, secret in told - named if "champion" not in secret}
    assert left == {("pipeline-dev", "spark"), ("stores", "kafka")}


def test_the_page_lists_each_entry_of_a_cloud_s_store_with_its_keys(known: dict[str, str]) -> None:
    """dev's Secrets say which; keys of S3 are listed in words."""
    page = (ROOT / "docs" / "deploy.md").read_text().splitlines()
    made = {name: keys for of in cluster_secrets.secrets(known).values() for name, keys in of.items()}
    stored = {
        found["metadata"]["name"]
        for path in manifests.OVERLAYS
        for found in manifests.objects(path)
        if found["kind"] == "ExternalSecret"
    }
    assert len(stored) >= 8
    for name in stored:
        (row,) = [line for line in page if line.startswith("| `") and f"`{name}`" in line.split(" | ")[0]]
        for key in made[name]:
            assert f"`{key}`" in row or key.startswith("AWS_"), f"{name} has {key}, and docs/deploy.md does not say so"


def test_the_object_store_of_a_predictor_is_told_to_kserve(known: dict[str, str]) -> None:
    (found, *_) = [
        made
        for made in cluster_secrets.objects(known)
        if made["metadata"]["name"] == "predictor-object-store"  # type: ignore[index]
    ]
    text = json.dumps(found)
    assert "serving.kserve.io/s3-endpoint" in text and known["S3_PREDICTOR_SECRET"] in text
    assert known["S3_ROOT_SECRET"] not in text


def test_a_password_that_lacks_is_named(known: dict[str, str]) -> None:
    del known["REDIS_PIPELINE_PASSWORD"]
    with pytest.raises(KeyError, match="REDIS_PIPELINE_PASSWORD"):
        cluster_secrets.secrets(known)
