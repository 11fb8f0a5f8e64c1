"""The gate `features_knowable`: a snapshot stays the same when nothing of later days is there.

A definition that joins a relation without its day knows the future, and scores that no model reaches once it serves.
So, when the definition changed, a few old days are computed again from orders and customers cut at the day's end, and
held against the rows just written. That needs no second statement of a feature: a new one is judged as it is written.
What an older row of an input was later changed to is not seen by this; target_leakage looks at what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import reduce
from typing import TYPE_CHECKING, Any

from feature_repo.churn.jobs.history import BOOKKEEPING, KEY
from plumbline import clock
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GATE = "features_knowable"
JUDGED = 3
"""Days that are computed again; each costs as much as a first run's."""


def days_to_judge(days: list[date]) -> list[date]:
    """Up to three of the days, spread over those that have a later one behind them."""
    older = sorted(days)[:-1]
    return sorted({older[len(older) * part // (JUDGED + 1)] for part in range(1, JUDGED + 1)}) if older else []


def judge(
    session: SparkSession,
    written: DataFrame,
    inputs: list[DataFrame],
    days: list[date],
    compute: Callable[[list[DataFrame], list[date]], DataFrame],
) -> Verdict:
    """The gate's verdict on the snapshots in `written`, which `compute` made of `inputs` (each with `known_at`).

    `rows` counts the rows that were looked at, `differing` those in which a column holds another value than the cut
    inputs give, `only` those that one side lacks.
    """
    judged = days_to_judge(days)
    if not judged:
        return Verdict(GATE, passed=True, extra={"told": "one day alone: nothing later that it could know"})
    parts = [compute([_cut(frame, day) for frame in inputs], [day]) for day in judged]
    columns = [name for name in written.columns if name not in {*KEY, *BOOKKEEPING}]
    sides = {
        "written": written.where(written["snapshot_date"].isin(judged)),
        "knowable": reduce(lambda one, other: one.unionByName(other), parts),
    }
    differs = {name: f"w_in AND k_in AND NOT (w.{name} <=> k.{name})" for name in columns}
    such = {
        name: f"min_by(struct({', '.join(f'w.{c}' for c in KEY)}, w.{name} AS written, k.{name} AS knowable), "
        f"struct({', '.join(f'w.{c}' for c in KEY)})) FILTER (WHERE {test})"
        for name, test in differs.items()
    }
    found = session.sql(
        "SELECT count(*) AS rows, count_if(w_in IS NULL OR k_in IS NULL) AS only, "
        + ", ".join(f"count_if({test}) AS {name}, {such[name]} AS such_{name}" for name, test in differs.items())
        + " FROM (SELECT *, true AS w_in FROM {written}) AS w FULL OUTER JOIN (SELECT *, true AS k_in FROM {knowable}) "
        + "AS k ON "
        + " AND ".join(f"w.{name} = k.{name}" for name in KEY),
        **sides,
    ).collect()[0]
    differing = {name: found[name] for name in columns if found[name]}
    passed, told = not differing and not found["only"], _told(found, differing, judged)
    extra = {
        "told": told,
        "days": [day.isoformat() for day in judged],
        "rows": found["rows"],
        "only": found["only"],
        "differing": differing,
    }
    return Verdict(GATE, passed, len(columns), () if passed else (told,), extra=extra)


def _cut(frame: DataFrame, day: date) -> DataFrame:
    return frame.where(frame["known_at"] < clock.end_of(day))


def _told(found: Any, differing: dict[str, int], judged: list[date]) -> str:
    days = ", ".join(map(str, judged))
    if not differing and not found["only"]:
        return f"{found['rows']:,} rows of {days} come out the same without what was known later"
    parts = [f"{found['only']:,} rows are there on one side only"] if found["only"] else []
    for name, count in differing.items():
        such = found[f"such_{name}"]
        parts.append(
            f"{name} in {count:,} of {found['rows']:,} rows, such as customer {such['customer_id']} on "
            f"{such['snapshot_date']}: {such['written']}, and {such['knowable']} by what was known then"
        )
    return f"on {days}: " + "; ".join(parts)
