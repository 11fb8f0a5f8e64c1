"""Dockerfiles: what hadolint does not ask for, and that the few folders which go into an image are enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from toolchain import manifests
from toolchain.manifests import BadManifest

USER = 10_001
PREFIXES = ("FROM", "ARG", "USER", "RUN", "COPY", "ENTRYPOINT")


def instructions(path: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / path).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


@pytest.mark.parametrize("path", manifests.DOCKERFILES)
def test_an_image_is_built_from_locks_and_runs_as_nobody(path: str) -> None:
    found = instructions(path)
    of = {name: [told for each, told in found if each == name] for name in PREFIXES}
    assert of["FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"], "two stages of one base image"
    assert "PYTHON_IMAGE" in of["ARG"], "no default: a tag that moves must be nobody's choice by accident"
    assert of["USER"] == [f"{USER}:{USER}"]
    installs = [part for told in of["RUN"] for part in told.split("&&") if re.search(r"pip (install|sync)", part)]
    locks = re.findall(r"requirements/\w+\.txt", " ".join(of["COPY"]))
    again = [len(names.split()) - 1 for names in re.findall(r"for name in ([\w ]+); do", " ".join(of["RUN"]))]
    assert len(installs) + sum(again) == len(locks) + 1 >= 3, "each lock, and this code"
    assert all("--require-hashes" in part or "--no-deps" in part for part in installs)
    assert found[-1][0] == "ENTRYPOINT" and found[-1][1].startswith("[")
    last = len(found) - 1 - [name for name, _ in reversed(found)].index("FROM")
    assert not [name for name, _ in found[last:] if name in ("RUN", "ADD")], "the second stage only copies"


def test_manifests_run_pods_as_the_images_user() -> None:
    text = "".join(path.read_text() for path in (ROOT / "k8s").rglob("*.yaml"))
    assert set(re.findall(r"runAs(?:User|Group): (\d+)", text)) == {str(USER)}


def test_hadolint_finds_a_slip(tmp_path: Path) -> None:
    for path in manifests.DOCKERFILES:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    shutil.copy(ROOT / ".hadolint.yaml", tmp_path)
    manifests.lint_dockerfiles(tmp_path)
    bad = tmp_path / manifests.DOCKERFILES[0]
    bad.write_text(bad.read_text() + "FROM python:latest\nRUN cd /tmp\n")
    with pytest.raises(BadManifest, match="DL3007"):
        manifests.lint_dockerfiles(tmp_path)


def test_what_goes_into_an_image_is_enough(tmp_path: Path) -> None:
    """`plumb` runs from a folder with only what .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    for name in (line[1:] for line in lines if line.startswith("!")):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    asked = (
        "import plumbline, serving.server, observability.exporter, training.churn.train, ingestion; "
        "from plumbline.settings import ROOT; from plumb import main; "
        "assert (ROOT / 'feature_repo/churn/feature_store.yaml').exists() and (ROOT / 'dbt/dbt_project.yml').exists(); "
        "print(plumbline.__file__)"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PLUMBLINE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "plumbline/__init__.py")
