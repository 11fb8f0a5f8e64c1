"""The exporter tells of rows that a real Redis lost, and of none while Redis is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from observability.exporter import Exporter
from plumbline.servers import online_store
from tests.serving.made_up_customers import KNOWN, put_online
from tests.serving.test_broken_rows import key

pytestmark = pytest.mark.usefixtures("_home_settings")


def lost() -> list[float]:
    """What a new exporter shows as `online_rows_lost`."""
    families: list[Any] = list(Exporter().collect())
    return [sample.value for family in families if family.name == "online_rows_lost" for sample in family.samples]


def test_lost_rows_are_counted_until_they_are_back(serving_home: Path) -> None:
    client = online_store.client()
    assert lost() == [0]
    client.delete(*(key(customer) for customer in KNOWN[:3]))
    assert lost() == [3]
    client.flushall()
    assert lost() == [], "without a mark nothing is known"
    put_online()
    assert lost() == [0]


def test_while_redis_is_away_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plumbline.settings import settings

    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    assert lost() == []
    monkeypatch.undo()
    settings.cache_clear()
