"""Slots: what a predictor of a stack shall serve, and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plumbline.errors import SettingsError, Unreadable
from plumbline.settings import settings
from plumbline.state import slots
from plumbline.state.slots import CANARY, STABLE, Slot
from products.churn import CHURN

SLOT = Slot("3", "a-run", "sha256:" + "0" * 64, "signed", "0123456789", ("MLmodel", "data/model.ubj"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_MODELS", str(tmp_path / "models"))
        settings.cache_clear()
        yield tmp_path / "models"
    settings.cache_clear()


def test_a_side_serves_what_was_written_until_it_is_cleared(place: Path) -> None:
    assert slots.read(CHURN, STABLE) is None
    slots.write(CHURN, STABLE, SLOT)
    assert slots.read(CHURN, STABLE) == SLOT
    assert slots.read(CHURN, CANARY) is None
    slots.write(CHURN, STABLE, None)
    slots.write(CHURN, STABLE, None)
    assert slots.read(CHURN, STABLE) is None


def test_files_come_as_they_were_put(place: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "data").mkdir(parents=True)
    (made / "MLmodel").write_text("a model\n")
    (made / "data" / "model.ubj").write_bytes(b"\x00\xff")
    assert slots.put(CHURN, "3", made) == SLOT.files
    (fetched := tmp_path / "fetched").mkdir()
    slots.fetch(CHURN, SLOT, fetched)
    assert {path.relative_to(fetched): path.read_bytes() for path in fetched.rglob("*") if path.is_file()} == {
        path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()
    }


def test_a_file_that_is_not_there_is_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="versions/3/MLmodel is not there"):
        slots.fetch(CHURN, SLOT, tmp_path)


def test_no_name_leads_out_of_the_folder(place: Path, tmp_path: Path) -> None:
    outside = place / CHURN.name / "versions" / "secret"
    outside.parent.mkdir(parents=True)
    outside.write_text("not of a model")
    (fetched := tmp_path / "fetched").mkdir()
    with pytest.raises(Unreadable):
        slots.fetch(CHURN, replace(SLOT, files=("../secret",)), fetched)
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize("told", [{}, {"version": "3"}, {"files": 3}])
def test_an_object_that_does_not_say_what_to_serve_is_named(place: Path, told: dict[str, object]) -> None:
    (place / CHURN.name).mkdir(parents=True)
    (place / CHURN.name / "stable.json").write_text(json.dumps(told))
    with pytest.raises(Unreadable, match="stable.json does not say what to serve"):
        slots.read(CHURN, STABLE)


def test_without_a_place_it_says_which_setting_lacks() -> None:
    with pytest.raises(SettingsError, match="PLUMBLINE_MODELS"):
        slots.read(CHURN, STABLE)
