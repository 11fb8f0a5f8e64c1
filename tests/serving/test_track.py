"""Which side of a rollout a predictor is: what its file says by now, stable when nothing does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from plumbline import clock
from plumbline.settings import settings
from products.churn import CHURN
from serving.track import SECONDS, Track
from tests.serving.made_up_customers import FULL


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that counts seconds, and stands still unless it is moved."""
    at = [time.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: at[0])
    return at


@pytest.mark.parametrize(
    ("said", "track"),
    [("canary", "canary"), ("canary\n", "canary"), ("stable", "stable"), ("", "stable"), ("Canary?", "stable")],
)
def test_only_who_is_told_so_is_a_canary(tmp_path: Path, said: str, track: str) -> None:
    (tmp_path / "track").write_text(said)
    assert Track(tmp_path / "track")() == track


def test_without_a_file_it_is_stable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Track()() == "stable"
    assert Track(tmp_path / "none")() == "stable"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert Track(tmp_path / "bytes")() == "stable"
    assert Track(tmp_path)() == "stable"
    (tmp_path / "track").write_text("canary")
    monkeypatch.setenv("PLUMBLINE_TRACK_FILE", str(tmp_path / "track"))
    settings.cache_clear()
    try:
        assert Track()() == "canary"
    finally:
        settings.cache_clear()


def test_a_promoted_canary_is_stable_within_a_second(tmp_path: Path, ticking: list[float]) -> None:
    file = tmp_path / "track"
    file.write_text("canary")
    track = Track(file)
    assert track() == "canary"
    file.write_text("stable")
    ticking[0] += 0.9 * SECONDS
    assert track() == "canary", "the file is read at most once a second"
    ticking[0] += 0.1 * SECONDS
    assert track() == "stable"
    file.unlink()
    ticking[0] += SECONDS
    assert track() == "stable"


@pytest.fixture
def _canary(serving_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is told its revision and that it is the canary."""
    (tmp_path / "track").write_text("canary")
    monkeypatch.setenv("PLUMBLINE_TRACK_FILE", str(tmp_path / "track"))
    monkeypatch.setenv("PLUMBLINE_REVISION", "6d5f8c9b7")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("_canary")
def test_an_answer_is_logged_and_measured_under_its_revision_and_track(tmp_path: Path, ticking: list[float]) -> None:
    from serving.churn.predictor import ChurnPredictor
    from serving.deploy import deploy
    from serving.outcome_log import OutcomeLog

    def measured(track: str) -> float:
        labels = {"product": "churn", "model_version": predictor.scorer.model.version, "track": track}  # type: ignore[union-attr]
        return REGISTRY.get_sample_value("pct_missing_features_count", labels) or 0.0

    deploy(CHURN)
    logged: list[dict[str, Any]] = []
    log = OutcomeLog(CHURN, logged.extend, seconds=3600)
    predictor = ChurnPredictor("champion", log)
    predictor.load()
    before = measured("canary"), measured("stable")
    asyncio.run(predictor.predict({"instances": [FULL]}))
    (tmp_path / "track").write_text("stable")
    ticking[0] += SECONDS
    asyncio.run(predictor.predict({"instances": [FULL]}))
    predictor.close()
    log.close()
    assert [(row["revision"], row["track"]) for row in logged] == [("6d5f8c9b7", "canary"), ("6d5f8c9b7", "stable")]
    assert (measured("canary"), measured("stable")) == (before[0] + 1, before[1] + 1)
