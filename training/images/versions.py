"""Versions of image datasets in DVC: pushed to the clean bucket by the stage, brought back by `plumb images checkout`.

A version is a folder of two files, `<dataset_id>.json` (what it is) and `<dataset_id>_data.parquet` (its rows), tracked
as one. DVC's remote is `<clean bucket>/dvc`; its pointer (`<dataset_id>.dvc`) is kept in state beside dataset.json. DVC
runs in an environment and a workspace of its own, without git. The workspace is thrown away: what counts is the remote,
whose objects are named by their content, so whatever is killed is run again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbline import files, s3
from plumbline.errors import ServiceUnavailable
from plumbline.progress import say
from plumbline.settings import ENVIRONMENTS, settings
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.images import IMAGES
from training import canonical
from training.errors import TrainingError

POINTER = "dataset.dvc"
PREFIX = "dataset_v1.0_pit_"
WORKSPACE = "dvc-"
LAST = 6
OWN = ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")
"""Folders that DVC would have outside the workspace."""


def remote() -> str:
    """Where DVC keeps the datasets: a folder or s3://bucket/prefix."""
    return f"{settings().bucket('clean-images')}/dvc"


def publish(place: Place, dataset_id: str, about: Mapping[str, Any], rows: bytes) -> str:
    """Pushes a dataset to the remote and keeps its pointer in state; gives the pointer's digest.

    Raises ServiceUnavailable without DVC's environment, or when DVC cannot reach the remote.
    """
    say(f"dvc push: {dataset_id} to {remote()}")
    with _workspace(dataset_id) as folder:
        files.write_whole(folder / dataset_id / f"{dataset_id}.json", files.dumps(dict(about)))
        files.write_whole(folder / dataset_id / f"{dataset_id}_data.parquet", rows)
        _dvc(folder, "add", "--quiet", dataset_id)
        _dvc(folder, "push", "--quiet", f"{dataset_id}.dvc")
        pointer = (folder / f"{dataset_id}.dvc").read_bytes()
    objects.replace_bytes(place.key(POINTER), pointer)
    return f"sha256:{files.sha256(pointer)}"


def is_published(place: Place) -> bool:
    """Whether the dataset's pointer is there."""
    return objects.read(place.key(POINTER)) is not None


def checkout(dataset_id: str, folder: Path | None = None) -> dict[str, Any]:
    """Brings a version back by `dvc pull` and proves that it is the one its name says; gives its manifest's main lines.

    `folder` is where its folder goes; default: `datasets` in home. Raises TrainingError for an unknown id, or when the
    rows that came are not those that the manifest describes, ServiceUnavailable when DVC cannot bring them.
    """
    pointer = _pointer(dataset_id)
    target = (folder or settings().home / "datasets").expanduser().absolute() / dataset_id
    with _workspace(dataset_id) as workspace:
        files.write_whole(workspace / f"{dataset_id}.dvc", pointer)
        say(f"dvc pull: {dataset_id} from {remote()}")
        _dvc(workspace, "pull", "--quiet", f"{dataset_id}.dvc")
        about = files.read_json(workspace / dataset_id / f"{dataset_id}.json") or {}
        content = (workspace / dataset_id / f"{dataset_id}_data.parquet").read_bytes()
        _verify(dataset_id, about, content)
        for name, bytes_ in ((f"{dataset_id}_data.parquet", content), (f"{dataset_id}.json", files.dumps(about))):
            files.write_whole(target / name, bytes_)
    told = ("dataset_id", "content_hash", "cutoff_timestamp", "split_counts", "release")
    return {"folder": str(target), **{name: about[name] for name in told}}


def _verify(dataset_id: str, about: Mapping[str, Any], content: bytes) -> None:
    digest = canonical.content_hash(canonical.from_parquet(content), canonical.key(IMAGES))
    named = (about.get("dataset_id"), about.get("content_hash"))
    if named != (dataset_id, digest) or not dataset_id.endswith(digest.removeprefix("sha256:")[:12]):
        raise TrainingError(
            f"what DVC brought for {dataset_id} is another dataset: its manifest says {named[0]} with {named[1]}, its "
            f"rows are {digest}. Nothing was written; build it anew with `plumb images dataset`"
        )


def _pointer(dataset_id: str) -> bytes:
    known = {about.get("dataset_id"): place for place, about in trainings.datasets(IMAGES.name).items()}
    found = objects.read(trainings.key(IMAGES.name, known[dataset_id], POINTER)) if dataset_id in known else None
    if found is None:
        there = ", ".join(sorted(str(name) for name in known)) or "none: run `plumb images dataset` first"
        raise TrainingError(f"no dataset {dataset_id!r} was published here; there are {there}")
    return found.content


@contextmanager
def _workspace(dataset_id: str) -> Iterator[Path]:
    """A DVC workspace that ends with the block; what a killed command left of one of this dataset goes first."""
    folder = settings().home / "tmp" / f"{WORKSPACE}{dataset_id}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _dvc(folder, "init", "--no-scm", "--quiet")
        files.write_whole(folder / ".dvc" / "config", _config())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config() -> str:
    place = remote()
    options = {"url": place if s3.holds(place) else str(Path(place.removeprefix("file://")).absolute())}
    if s3.holds(place):
        s3.require_keys(place)
        options["region"] = s3.region()
        if url := s3.endpoint():
            options["endpointurl"] = url
    lines = "".join(f"    {name} = {json.dumps(value)}\n" for name, value in options.items())
    core = "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n    remote = clean\n"
    return f"{core}['remote \"clean\"']\n{lines}"


def _dvc(folder: Path, *command: str) -> None:
    """Runs DVC in a workspace, with nothing of its own outside it. Raises ServiceUnavailable when it fails."""
    program = ENVIRONMENTS / "dvc" / "bin" / "dvc"
    if not program.exists():
        raise ServiceUnavailable(f"no DVC at {program}, which keeps the versions of datasets: run `make setup` once")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DVC_"))}
    env |= {f"DVC_{name}_DIR": str(folder / ".own" / name.lower()) for name in OWN} | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [str(program), *command], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        told = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-LAST:])
        raise ServiceUnavailable(f"dvc {command[0]} with {remote()} failed (exit code {done.returncode}):\n    {told}")
