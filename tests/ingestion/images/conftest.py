"""Runs of stages 01 and 02 in a home of the test's own, by the pipeline and as a whole command."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingestion.images.clean import clean
from ingestion.images.ingest import ingest, refuse_other_source
from plumbline.lake import tables as lake
from plumbline.pipeline import publish, stage
from plumbline.pipeline.stage import Result
from plumbline.settings import settings
from plumbline.state import candidates
from plumbline.verdict import Verdict
from products.images import IMAGES
from tests.plumbline.pictures.malformed import encoded, rgb

DAY, NEXT = date(1998, 6, 29), date(1998, 6, 30)


def landed(source: str, day: date = DAY) -> Result:
    """Stage 01 from a source."""
    refuse_other_source(day, source)
    return stage.perform(IMAGES, "ingest", day, partial(ingest, source=source))


def cleaned(day: date = DAY) -> Result:
    """Stage 02."""
    return stage.perform(IMAGES, "clean", day, clean)


def released(day: date) -> Result:
    """Stage 02 and a release of it; embeddings are another room's."""
    cleaned(day)
    stage.perform(IMAGES, "features", day, lambda run: "no embeddings here")
    return stage.perform(IMAGES, "release", day, publish.publish)


def gate(day: date, name: str = "landing_complete") -> Verdict:
    """A gate's verdict in a day's run."""
    candidate = candidates.load("images", day)
    assert candidate is not None
    return candidate.gates[name]


def png(seed: int) -> bytes:
    """A picture that no other seed gives."""
    return encoded(rgb(seed), "PNG")


def folder_of(folder: Path, files: dict[str, bytes], labels: str) -> Path:
    """A source: these files, and labels.csv with these rows."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "labels.csv").write_text("image,label\n" + labels)
    return folder


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of a table's head, by image."""
    found: list[dict[str, Any]] = lake.open_table(table).to_pyarrow_dataset().to_table().to_pylist()
    return sorted(found, key=lambda row: row["image_id"])


@pytest.fixture(autouse=True)
def _own_home(home: Path) -> None:
    """Every test here works in a fresh home; what it lands lies there."""
    assert settings().bucket("raw-images").startswith(str(home))
