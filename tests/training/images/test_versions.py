"""A dataset's versions in DVC, by its real command: pushed, brought back by name, and refused when they are another."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plumbline import files
from plumbline.errors import ServiceUnavailable
from plumbline.settings import settings
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from tests.object_store import S3Server
from training import canonical, datasets
from training.errors import TrainingError
from training.images import dataset, versions


def published(place: Place) -> str:
    """Publishes the home's dataset; its id."""
    about = datasets.load(place).about
    rows = objects.read(place.key(trainings.ROWS))
    assert rows is not None
    versions.publish(place, about["dataset_id"], about, rows.content)
    return str(about["dataset_id"])


def content_hash(path: Path) -> str:
    return canonical.content_hash(canonical.from_parquet(path.read_bytes()), dataset.KEY)


def remote_files() -> dict[str, bytes]:
    """What is in DVC's remote, by the file's path."""
    folder = Path(versions.remote())
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_comes_back_byte_for_byte_without_what_pushed_it(images: Place, tmp_path: Path) -> None:
    dataset_id, about = published(images), datasets.load(images).about
    assert not list((settings().home / "tmp").glob("dvc-*")), "the workspace is thrown away"
    pointer = objects.read(images.key(versions.POINTER))
    assert pointer is not None and f"path: {dataset_id}" in pointer.text and "nfiles: 2" in pointer.text

    told = versions.checkout(dataset_id, tmp_path)
    folder = Path(told["folder"])
    assert {path.name for path in folder.iterdir()} == {f"{dataset_id}.json", f"{dataset_id}_data.parquet"}
    assert content_hash(folder / f"{dataset_id}_data.parquet") == about["content_hash"] == told["content_hash"]
    manifest = files.read_json(folder / f"{dataset_id}.json") or {}
    named = ("dataset_id", "content_hash", "cutoff_timestamp", "split_counts", "extraction_model",
             "preprocessing_version", "cleaning_version", "release")  # fmt: skip
    assert {name: manifest[name] for name in named} == {name: about[name] for name in named}

    # Pushed again, nothing is added.
    before = remote_files()
    published(images)
    assert remote_files() == before and len(before) == 3


def test_a_version_that_is_another_is_not_handed_out(images: Place, tmp_path: Path) -> None:
    dataset_id = published(images)
    data = datasets.load(images)
    frame = data.rows.to_pandas().assign(label="owl")
    rows = canonical.to_parquet(canonical.table(frame, dataset.schema(), dataset.KEY))
    versions.publish(images, dataset_id, data.about, rows)
    with pytest.raises(TrainingError, match=f"what DVC brought for {dataset_id} is another dataset"):
        versions.checkout(dataset_id, tmp_path)
    assert not (tmp_path / dataset_id).exists()
    with pytest.raises(TrainingError, match=f"no dataset 'dataset_x' was published here; there are {dataset_id}"):
        versions.checkout("dataset_x", tmp_path)


def test_a_remote_that_lost_an_object_is_named(images: Place, tmp_path: Path) -> None:
    dataset_id = published(images)
    shutil.rmtree(Path(versions.remote()) / "files")
    with pytest.raises(ServiceUnavailable, match=r"dvc pull with .*buckets/clean-images/dvc failed"):
        versions.checkout(dataset_id, tmp_path)


def test_what_a_killed_command_left_is_in_nobodys_way(images: Place) -> None:
    dataset_id = datasets.load(images).about["dataset_id"]
    left = settings().home / "tmp" / f"dvc-{dataset_id}" / ".dvc" / "tmp"
    left.mkdir(parents=True)
    (left / "lock").write_text("1")
    (left / "rwlock").write_text("{")
    published(images)
    assert versions.is_published(images)


def test_without_its_environment_it_says_what_makes_it(images: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "ENVIRONMENTS", Path("/nowhere"))
    with pytest.raises(ServiceUnavailable, match=r"no DVC at /nowhere/dvc/bin/dvc.*run `make setup` once"):
        published(images)
    assert not versions.is_published(images)


def test_it_writes_nothing_outside_its_workspace_and_calls_nobody(
    images: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's own folders, and the addresses that it would report to, are watched by a command in its place."""
    real = versions.ENVIRONMENTS / "dvc" / "bin" / "dvc"
    shim = tmp_path / "environments" / "dvc" / "bin" / "dvc"
    shim.parent.mkdir(parents=True)
    trace = tmp_path / "home-of-dvc"
    shim.write_text(f'#!/bin/sh\nenv | grep ^DVC_ >> {tmp_path}/env\nHOME={trace} exec {real} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setattr(versions, "ENVIRONMENTS", tmp_path / "environments")
    published(images)
    assert not trace.exists()
    told = (tmp_path / "env").read_text()
    assert "DVC_NO_ANALYTICS=1" in told
    assert all(str(settings().home) in line for line in told.splitlines() if "_DIR=" in line)


def test_versions_in_a_bucket(
    images: Place, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"PLUMBLINE_CLEAN_IMAGES": s3_server.fresh_url(), **s3_server.env}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    dataset_id = published(images)
    told: dict[str, Any] = versions.checkout(dataset_id, tmp_path)
    assert content_hash(tmp_path / dataset_id / f"{dataset_id}_data.parquet") == told["content_hash"]
    held = objects.store_at(versions.remote()).keys("files", None)
    assert len(held) == 3, "two files and their folder"
    assert subprocess.run(["grep", "-r", s3_server.env["AWS_SECRET_ACCESS_KEY"], str(settings().home)], check=False,
                          capture_output=True).returncode == 1, "no key is written down"  # fmt: skip
