"""What is pinned is what is built, and what lacks says how to get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from toolchain import tofu_tools
from toolchain.binaries import BinariesError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path / "cache"))
    return tofu_tools.folder()


def test_everything_lacks_until_it_was_built_from_these_pins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*tofu_tools.PROGRAMS, *tofu_tools.FETCHED]
    assert tofu_tools.missing() == names
    with pytest.raises(BinariesError, match="tofu, kustomization, .*: not built.*`make tofu-tools`"):
        tofu_tools.find()
    (folder / "stamps").mkdir(parents=True)
    for name in names:
        (folder / "stamps" / name).write_text(tofu_tools._pin(name))
    assert tofu_tools.missing() == [] and tofu_tools.find() == folder / "bin" / "tofu"
    monkeypatch.setitem(tofu_tools.PROGRAMS, "tofu", ("github.com/opentofu/opentofu", "v1.99.0", "h1:x=", ".", ""))
    assert tofu_tools.missing() == ["tofu"]


def test_a_module_that_is_not_the_pinned_one_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = folder.parent.parent / "go"
    told = json.dumps({"Sum": "h1:other", "Dir": "/nowhere"})
    go.write_text(f"#!/bin/sh\n[ $1 = env ] && echo go1.26.6 || echo '{told}'\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    with pytest.raises(BinariesError, match=r"opentofu@v1.12.6: expected h1:0VT4.*, found h1:other"):
        tofu_tools.build()
    assert "tofu" in tofu_tools.missing()


def test_resources_are_asked_for_by_how_they_are_used() -> None:
    text = (
        'resource "aws_vpc" "this" {\n  mock_data "aws_region" {\ndata "aws_region" "here" {}\nresource "other" "x" {'
    )
    assert set(tofu_tools.USED.findall(text)) == {("resource", "aws_vpc"), ("data", "aws_region")}


def test_versions_are_pinned_exactly_and_alike() -> None:
    texts = [path.read_text() for path in sorted((ROOT / "terraform").rglob("versions.tf"))]
    assert len(texts) > 10
    for text in texts:
        assert 'required_version = "~> 1.12"' in text
        assert text.count("version = ") == text.count("source  =") + 1
        if "hashicorp/aws" in text:
            assert 'version = "6.25.0"' in text
        if "kbst/kustomization" in text:
            assert f'version = "{tofu_tools.PROGRAMS["kustomization"][1][1:]}"' in text
