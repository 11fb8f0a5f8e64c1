"""A lake is one state's: a home that holds another is refused before it writes, one that holds the same joins."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from plumbline.errors import SettingsError, Unreadable
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, retention
from plumbline.state import releases
from products.churn import CHURN
from serving import compaction
from tests import toy_run
from tests.conftest import use_home
from tests.toy import TOY

DAY, NEXT = date(1998, 6, 29), date(1998, 6, 30)


def run(day: date) -> None:
    for name in toy_run.WORK:
        toy_run.perform(name, day)


@pytest.fixture
def first(home: Path) -> Path:
    """A home with a release, and a lake in it."""
    run(DAY)
    return home


def other(first: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second home on the first one's lake."""
    return use_home(first.parent / "other", monkeypatch, lake=str(first / "lake"))


def test_a_second_home_is_refused_before_it_writes(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other(first, monkeypatch)
    told = f"the lake {first}/lake belongs to another state \\({first}, since 20.*nothing was written. Name another"
    for work in (lambda: run(NEXT), lambda: retention.vacuum(TOY), lambda: compaction.compact(CHURN)):
        with pytest.raises(SettingsError, match=told):
            work()
    assert lake.version(toy_run.TABLE) == 0
    assert releases.in_force("toy") is None
    use_home(first, monkeypatch)
    run(NEXT)
    assert releases.required("toy").tables == {toy_run.TABLE: 1}


def test_the_lake_is_claimed_by_whoever_writes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(home, monkeypatch, lake=str(home / "shared"))
    run(DAY)
    use_home(home.parent / "other", monkeypatch)  # on the same lake
    with pytest.raises(SettingsError, match="belongs to another state"):
        run(DAY)


def test_a_home_that_was_moved_keeps_its_lake(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = first.parent / "moved"
    shutil.move(first, moved)
    use_home(moved, monkeypatch)
    run(NEXT)
    assert releases.required("toy").as_of == NEXT


def test_a_lost_state_does_not_get_its_lake_back(first: Path) -> None:
    """Releases begin at 1 again; the old ones named versions that a new state's vacuum would take."""
    for path in first.iterdir():
        if path.name != "lake":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SettingsError, match="belongs to another state"):
        run(NEXT)


def test_a_mark_that_is_none_is_named(first: Path) -> None:
    mark = first / "lake" / "_plumbline" / "state-id.json"
    mark.chmod(0o644)
    mark.write_text("{}")
    with (
        pytest.raises(Unreadable, match="lake/_plumbline/state-id.json: expected the id of the state"),
        leases.lease(TOY, "ingest"),
    ):
        pass
