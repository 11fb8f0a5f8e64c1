"""The day that an Airflow run covers, whoever started it, rendered as Airflow renders it: nothing may be undefined."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from plumbline.orchestration.tasks import AS_OF

TRIGGERED = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
INTERVAL = datetime(2026, 2, 27, tzinfo=UTC)


@pytest.mark.parametrize(
    ("of_the_run", "day"),
    [
        ({"data_interval_start": INTERVAL}, "2026-02-27"),
        ({"data_interval_start": INTERVAL, "params": {"as_of": "2026-02-03"}}, "2026-02-03"),
        ({"params": {"as_of": "2026-02-03"}}, "2026-02-03"),
        ({}, "2026-03-01"),
        ({"data_interval_start": None}, "2026-03-01"),
    ],
    ids=["scheduled", "scheduled and told", "told", "no logical date", "an empty interval"],
)
def test_a_run_covers_the_day_it_is_told_or_its_interval_or_the_last_that_is_over(
    of_the_run: dict[str, Any], day: str
) -> None:
    airflow = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    airflow.filters["ds"] = lambda moment: moment.strftime("%Y-%m-%d")
    context = {
        "params": {"as_of": None},
        "dag_run": SimpleNamespace(run_after=TRIGGERED),
        "macros": SimpleNamespace(timedelta=timedelta),
        **of_the_run,
    }
    assert airflow.from_string(AS_OF).render(context) == day
