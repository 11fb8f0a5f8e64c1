"""The exporter tells of rows that a real Redis lost, and of none while Redis is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feature_repo import online_rows
from observability.exporter import Exporter
from plumbline.servers import online_store
from tests.serving.made_up_customers import KNOWN, put_online
from tests.serving.test_broken_rows import key

pytestmark = pytest.mark.usefixtures("_home_settings")


def missing() -> list[float]:
    """By how much a new exporter's `online_rows` is below `online_rows_written`; nothing when it shows neither."""
    families: list[Any] = list(Exporter(online_rows=online_rows.counts).collect())
    shown = {sample.name: sample.value for family in families for sample in family.samples}
    return [shown["online_rows_written"] - shown["online_rows"]] if "online_rows" in shown else []


def test_lost_rows_are_counted_until_they_are_back(serving_home: Path) -> None:
    client = online_store.client()
    assert missing() == [0]
    client.delete(*(key(customer) for customer in KNOWN[:3]))
    assert missing() == [3]
    client.flushall()
    assert missing() == [], "without a mark nothing is known"
    put_online()
    assert missing() == [0]


def test_while_redis_is_away_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plumbline.settings import settings

    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    assert missing() == []
    monkeypatch.undo()
    settings.cache_clear()
