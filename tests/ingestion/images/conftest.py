"""Runs of stages 01 and 02 in a home of the test's own, by the pipeline and as a whole command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import pytest

from ingestion.images.clean import clean
from ingestion.images.ingest import ingest
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.pipeline.stage import Result
from products.images import IMAGES

DAY = date(1998, 6, 30)

Stages = Callable[..., Result]


def landed(source: str, day: date = DAY) -> Result:
    """Stage 01 from a source."""
    return stage.perform(IMAGES, "ingest", day, partial(ingest, source=source))


def cleaned(day: date = DAY) -> Result:
    """Stage 02."""
    return stage.perform(IMAGES, "clean", day, clean)


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of a table's head, by image."""
    found: list[dict[str, Any]] = lake.open_table(table).to_pyarrow_dataset().to_table().to_pylist()
    return sorted(found, key=lambda row: row["image_id"])


@pytest.fixture(autouse=True)
def _own_home(home: object) -> None:
    """Every test here works in a fresh home."""
