"""A home with one Spark server for the whole session; a fresh lake and an empty catalog for each test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from plumbline import lake, services
from plumbline.releases import Release
from plumbline.settings import settings
from plumbline.stage import Candidate, StageRun

MARTS = ("analytics.orders", "analytics.customers")
SOURCES = ("raw.orders", "raw.customers")


@pytest.fixture(scope="session")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of the session's Spark server; tests/validation names the same one."""
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
def spark(spark_home: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    from plumbline.spark import session

    monkeypatch.setenv("SPARK_REMOTE", "")
    monkeypatch.delenv("SPARK_REMOTE")
    for name, value in {"HOME": spark_home, "LAKE": str(tmp_path / "lake"), "NOW": "1998-07-01T00:00:00Z"}.items():
        monkeypatch.setenv(f"PLUMBLINE_{name}", value)
    settings.cache_clear()
    found = session()
    for table in MARTS:
        found.sql(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
        found.sql(f"DROP TABLE IF EXISTS {table}")
    yield found
    settings.cache_clear()


@pytest.fixture
def start():
    """Makes a stage run at the heads of raw, on top of nothing or of the tables of a base release."""

    def make(base: dict[str, int] | None = None, as_of: date = date(1997, 1, 10)) -> StageRun:
        release = Release(1, "churn", date(1997, 1, 1), None, base, {}, "sha", "lock", "run", "then") if base else None
        heads = {table: version for table in SOURCES if (version := lake.version(table)) is not None}
        candidate = Candidate("churn-test", "churn", as_of, 1 if base else None, tables=heads)
        return StageRun("dbt_run", as_of, candidate, release)

    return make
