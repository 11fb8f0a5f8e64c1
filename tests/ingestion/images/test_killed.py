"""Killed with -9 half way and run again: the same tables and the same objects as without the kill."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingestion.images import clean as cleaning
from ingestion.images import landing, relabels
from plumbline import files
from plumbline.causes import DiskTrouble
from plumbline.pictures.safe import Cleaned, Decoders
from plumbline.settings import ROOT, settings
from products.images import CLEAN, LABELS, RAW
from tests.ingestion.images.conftest import DAY, NEXT, cleaned, landed, released, rows

SOURCE = "mnist:60"
POINTS = [
    ("ingest", "ingestion.images.landing:put_once", "9"),  # objects are half there
    ("ingest", "ingestion.images.tables:append", "-1"),  # one table of two
    ("clean", "ingestion.images.landing:put_once", "30"),
    ("clean", "ingestion.images.clean:_write", "-1"),
]
MORE_POINTS = [
    ("ingest", "ingestion.images.landing:put_once", "-40"),  # all objects but the manifest
    ("ingest", "ingestion.images.landing:put_once", "-41"),  # the manifest, and no table
    ("ingest", "ingestion.images.landing_gate:hold", "1"),
    ("ingest", "plumbline.pipeline.contract_gate:audit", "-2"),  # all but the candidate's word
    ("clean", "ingestion.images.clean:_grouped", "1"),
    ("clean", "ingestion.images.cleaning_gate:hold", "1"),
    ("clean", "plumbline.pipeline.contract_gate:audit", "-1"),
]
TABLES = (RAW, LABELS, CLEAN)
EXPECTED = "expected.json"


def state() -> dict[str, Any]:
    """Tables and objects, but for the names of places."""
    home = settings().home

    def plain(row: dict[str, Any]) -> dict[str, str]:
        return {name: re.sub(r".*/buckets/", "", str(value)) for name, value in row.items()}

    objects = {
        str(path.relative_to(home)): files.sha256(path.read_bytes()) for path in (home / "buckets").rglob("*.png")
    }
    return {**{table: [plain(row) for row in rows(table)] for table in TABLES}, **objects}


def one_day_released() -> None:
    """A first release with some of the digits, a label that waits, and what the next day comes to without a kill."""
    home = settings().home
    landed("mnist:20")
    released(DAY)
    relabels.state(rows(RAW)[0]["image_id"], "new", "ada")
    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    expected = to_the_end()
    shutil.rmtree(home)
    copy.rename(home)
    (home / EXPECTED).write_text(json.dumps(expected))


def test_a_killed_cleaning_goes_on_behind_the_last_whole_part(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landed(SOURCE)
    monkeypatch.setattr(cleaning, "PART", 20)
    put, calls = landing.put_once, itertools.count()

    def full(*given: Any) -> bool:
        if next(calls) == 45:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(*given)

    with monkeypatch.context() as patch:
        patch.setattr(landing, "put_once", full)
        with pytest.raises(DiskTrouble):
            cleaned()
    asked, decoded = list[str](), Decoders.cleaned

    def noted(pool: Decoders, content: bytes, name: str | None = None) -> Cleaned:
        asked.append(str(name))
        return decoded(pool, content, name)

    monkeypatch.setattr(Decoders, "cleaned", noted)
    cleaned()
    assert len(asked) == 20
    assert {row["state"] for row in rows(CLEAN)} == {"clean"}
    assert not list(home.glob("buckets/clean-images/cleaning/*/*"))


def to_the_end() -> dict[str, Any]:
    landed(SOURCE, NEXT)
    cleaned(NEXT)
    return state()


@pytest.mark.parametrize(
    ("stage", "function", "n"),
    [*POINTS, *(pytest.param(*point, marks=pytest.mark.slow) for point in MORE_POINTS)],
)
def test_a_killed_stage_run_again_gives_the_same_rows_and_objects(
    stage: str, function: str, n: str, home: Path, home_as: Callable[[str, Callable[[], object]], object]
) -> None:
    home_as("a day of images", one_day_released)
    if stage == "clean":
        landed(SOURCE, NEXT)

    command = [sys.executable, "-m", "tests.ingestion.images.killed_run", stage, str(NEXT), SOURCE, function, n]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert to_the_end() == json.loads((home / EXPECTED).read_text())
    assert len(rows(RAW)) == len(rows(CLEAN)) == 60
    assert len(rows(LABELS)) == 61
