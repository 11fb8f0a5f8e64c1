"""The gate `features_knowable`: a snapshot stays the same when nothing of later days is there.

A definition that joins a relation without its day knows the future, and scores that no model reaches once it serves.
So, when the definition changed, a few old days are computed again from all that it reads, cut at the day's end, and
held against the rows just written. That needs no second statement of a feature: a new one is judged as it is written.
Cut means: as the history was then, with versions that ended later still standing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import reduce
from typing import TYPE_CHECKING

from feature_repo.churn.jobs import compared
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
    inputs: Mapping[str, DataFrame],
    days: list[date],
    compute: Callable[[Mapping[str, DataFrame], list[date]], DataFrame],
) -> Verdict:
    """The gate's verdict on the snapshots in `written`, which `compute` made of `inputs` (each with `known_at`).

    `rows` counts the rows that were looked at, `differing` those in which a column holds another value than the cut
    inputs give, `only` those that one side lacks.
    """
    judged = days_to_judge(days)
    if not judged:
        return Verdict(GATE, passed=True, extra={"told": "one day alone: nothing later that it could know"})
    parts = [compute({n: cut(frame, clock.end_of(day)) for n, frame in inputs.items()}, [day]) for day in judged]
    knowable = reduce(lambda one, other: one.unionByName(other), parts)
    result = compared.compare(session, written.where(written["snapshot_date"].isin(judged)), knowable)
    days_named = ", ".join(map(str, judged))
    if result.same:
        summary = f"{result.rows:,} rows of {days_named} come out the same without what was known later"
    else:
        summary = f"on {days_named}: " + "; ".join(result.phrases("", "by what was known then"))
    extra = {
        "told": summary,
        "days": [day.isoformat() for day in judged],
        "rows": result.rows,
        "only": result.only,
        "differing": result.differing,
    }
    return Verdict(GATE, result.same, len(result.columns), () if result.same else (summary,), extra=extra)


def cut(frame: DataFrame, moment: datetime) -> DataFrame:
    """A history as it was at a moment: without later versions, and not knowing which of the others end later."""
    from pyspark.sql import functions as F

    known = frame.where(frame["known_at"] < moment)
    if "known_until" not in frame.columns:
        return known
    ended = F.when(F.col("known_until") < F.lit(moment), F.col("known_until"))
    return known.withColumn("known_until", ended)
