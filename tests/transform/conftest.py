"""A fresh lake and an empty catalog for each test."""

from __future__ import annotations

from datetime import date

import pytest

from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release
from products.churn import CHURN

SOURCES = CHURN.raw


@pytest.fixture
def spark(spark_lake: None) -> object:
    """The shared Spark session, with no mart in its catalog."""
    from plumbline.lake.spark import session

    found = session()
    for table in CHURN.marts:
        found.sql(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
        found.sql(f"DROP TABLE IF EXISTS {table}")
    return found


@pytest.fixture
def start():
    """Makes a stage run at the heads of raw, on top of nothing or of the tables of a base release."""

    def make(base: dict[str, int] | None = None, as_of: date = date(1997, 1, 10)) -> StageRun:
        release = Release(1, "churn", date(1997, 1, 1), None, base, {}, "sha", "lock", "run", "then") if base else None
        heads = {table: version for table in SOURCES if (version := lake.version(table)) is not None}
        candidate = Candidate("churn-test", "churn", as_of, 1 if base else None, tables=heads)
        return StageRun(CHURN, "dbt_run", as_of, candidate, release)

    return make
