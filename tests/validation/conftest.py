"""The session's Spark server (shared with tests/transform), and real orders as a mart in a fresh lake."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from plumbline import services
from plumbline.settings import settings


@pytest.fixture(scope="session")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of the session's Spark server; tests/transform names the same one."""
    home = tmp_path_factory.getbasetemp() / "spark-home"
    home.mkdir(exist_ok=True)
    yield str(home)
    from plumbline.spark import session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(home))
        settings.cache_clear()
        if services.find("spark"):
            session().stop()
        services.stop_all()
    settings.cache_clear()


@pytest.fixture
def home(spark_home: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings of a test: the session's home and Spark server, a lake of its own."""
    monkeypatch.setenv("SPARK_REMOTE", "")
    monkeypatch.delenv("SPARK_REMOTE")
    for name, value in {"HOME": spark_home, "LAKE": str(tmp_path / "lake"), "NOW": "1998-07-01T00:00:00Z"}.items():
        monkeypatch.setenv(f"PLUMBLINE_{name}", value)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def first_week() -> list[dict]:
    """The real orders of the shop's first seven days, as rows of the mart."""
    from datetime import UTC, datetime, time

    from ingestion.shop import packaged, read

    rows = []
    for order in read(packaged()):
        if order.order_date <= date(1997, 1, 7):
            noon = datetime.combine(order.order_date, time(12), UTC)
            stamps = {"recorded_at": noon, "known_at": noon, "loaded_at": noon, "batch_id": "first week"}
            rows.append(order.__dict__ | stamps)
    return rows
