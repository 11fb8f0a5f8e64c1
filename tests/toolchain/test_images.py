"""Images, without an engine: digests written where manifests take them, and the list of what is in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plumbline.registry.signing import Untrusted
from plumbline.settings import settings
from toolchain import images, sbom
from toolchain.images import ImageError

DIGEST = "sha256:" + "ab" * 32
LISTED = (
    "pypi xgboost-cpu 3.2.0\ndeb libc6 2.36-9+deb12u14\njar delta-spark_4.2_2.13-4.4.0.jar -\npypi xgboost-cpu 3.2.0\n"
)


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "kustomization.yaml"
    copy.write_text(images.DIGESTS.read_text())
    monkeypatch.setattr(images, "DIGESTS", copy)

    def docker(*arguments: str, check: bool = True) -> tuple[int, str]:
        there = arguments[-1]
        return 0, f"elsewhere/{there}@sha256:{'0' * 64}\n{there}@{DIGEST}" if arguments[0] == "image" else ""

    monkeypatch.setattr(images, "_docker", docker)
    return copy


def test_pushed_digests_are_written_where_manifests_take_them(digests: Path) -> None:
    import yaml

    assert images.push("127.0.0.1:5000/plumbline") == dict.fromkeys(images.IN_CLUSTER, DIGEST)
    found = {told["name"]: told for told in yaml.safe_load(digests.read_text())["images"]}
    for name in images.IN_CLUSTER:
        told = found[f"plumbline/{name}"]
        assert (told["newName"], told["digest"]) == (f"127.0.0.1:5000/plumbline/{name}", DIGEST)
    assert found["kserve/storage-initializer"]["digest"].endswith("0" * 64)


def test_an_image_that_manifests_do_not_name_is_refused(digests: Path) -> None:
    digests.write_text(
        digests.read_text().replace("plumbline/predictor #", "").replace("- name: plumbline/predictor", "")
    )
    with pytest.raises(ImageError, match="does not name plumbline/predictor once"):
        images.push("registry", ("predictor",))


def test_a_list_names_each_package_once_and_the_image() -> None:
    made = sbom.document("predictor", DIGEST, LISTED)
    assert made["metadata"]["component"]["version"] == DIGEST
    assert [(told["name"], told["version"]) for told in made["components"]] == [
        ("libc6", "2.36-9+deb12u14"),
        ("delta-spark_4.2_2.13", "4.4.0"),
        ("xgboost-cpu", "3.2.0"),
    ]
    assert len({told["bom-ref"] for told in made["components"]}) == 3


def test_a_list_that_was_changed_or_is_another_image_s_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plumbline.registry import signing

    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    try:
        made = tmp_path / "images" / "predictor" / "bom"
        made.mkdir(parents=True)
        (made / "bom.cdx.json").write_text(json.dumps(sbom.document("predictor", DIGEST, LISTED)))
        (made.parent / "bom.signature.json").write_text(signing.sign(made).bundle)
        sbom.verify("predictor", DIGEST)
        with pytest.raises(sbom.NotListed, match="is of sha256:abab"):
            sbom.verify("predictor", "sha256:" + "0" * 64)
        (made / "bom.cdx.json").write_text((made / "bom.cdx.json").read_text().replace("3.2.0", "3.2.1"))
        with pytest.raises(Untrusted):
            sbom.verify("predictor", DIGEST)
    finally:
        settings.cache_clear()
