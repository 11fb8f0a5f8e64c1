"""The gate `ge_check`: Great Expectations over exactly the version of analytics.orders that the run wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline import clock, observed
from plumbline.errors import GateFailed
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.observed import Assertion
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.verdict import Verdict
from validation.churn import suites
from validation.expectations import Outcome, docs, validate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GATE = "orders_expectations"
TABLE = "analytics.orders"
SAMPLES = 5
UNSAID = {"column", "column_set", "exact_match"}
SHOWN = ("order_id", "customer_id", "order_date", "total_cents", "batch_id")


def check(run: StageRun) -> str:
    """Audits the run's orders; one sentence when all expectations hold.

    Raises GateFailed that names each failed expectation, its rows and some of their keys. Either way the verdict is in
    `run.gates` and the evidence in `<home>/evidence/<run_id>/ge_check.json`.
    """
    version, landed = run.pin(TABLE), run.pin("raw.orders")
    session = spark.session()
    say(f"Great Expectations over {TABLE}@v{version}")
    distinct = session.sql(f"SELECT count(DISTINCT order_id) AS n FROM {run.raw('raw.orders')}").collect()[0].n
    checks = suites.orders(run.as_of, distinct, _new_orders(run))
    outcomes = validate(TABLE, f"{run.candidate.run_id}@v{version}", _audited(session, run, version), checks)
    for outcome in outcomes:
        seen = outcome.unexpected if outcome.observed is None else outcome.observed
        column = outcome.check.arguments.get("column")
        actual = None if seen is None else str(seen)[:200]
        observed.asserted(TABLE, Assertion(outcome.check.expectation, outcome.success, column, actual=actual))
    failed = [outcome for outcome in outcomes if not outcome.success]
    findings = [_finding(session, outcome, version, run.raw("raw.orders")) for outcome in failed]
    verdict = gates.record(
        run,
        Verdict(GATE, not failed, len(outcomes), tuple(finding["what"] for finding in findings)),
        {
            "versions": {TABLE: version, "raw.orders": landed},
            "findings": findings,
            "outcomes": [outcome.as_dict() for outcome in outcomes],
        },
        name=run.name,
    )
    if failed:
        raise GateFailed(
            f"{len(failed)} of {len(outcomes)} expectations of {TABLE}@v{version} failed, nothing is published:\n  "
            + "\n  ".join(finding["told"] for finding in findings)
            + f"\n  Evidence: {verdict.report}; report: {docs()}.\n  What was landed is set aside: "
            f"mend the data at its source and start over with `plumb ingest --as-of {run.as_of}`."
        )
    return f"all {len(outcomes)} expectations of {TABLE}@v{version} hold"


def _new_orders(run: StageRun) -> int | None:
    """How many rows dbt merged on top of the base release; None when it built from nothing."""
    if run.base is None or TABLE not in run.base.tables:
        return None
    rows = run.candidate.stages.get("dbt_run", {}).get("rows", {})
    return int(rows.get(TABLE, 0))


def _audited(session: SparkSession, run: StageRun, version: int) -> DataFrame:
    """The orders at their version; with the audit column of new orders' amounts when there is a base release.

    What a run lands has a `known_at` behind its base's last day, however the order is dated.
    """
    frame = session.sql(f"SELECT * FROM {lake.at(TABLE, version)}")
    if run.base is None:
        return frame
    opened = f"TIMESTAMP '{clock.end_of(run.base.as_of):%Y-%m-%d %H:%M:%S+00:00}'"
    return frame.selectExpr("*", f"CASE WHEN known_at >= {opened} THEN total_cents END AS {suites.NEW_CENTS}")


def _finding(session: SparkSession, outcome: Outcome, version: int, landed: str) -> dict[str, Any]:
    """A failed expectation in words, with the keys of some rows that break it."""
    arguments = outcome.check.arguments
    what = outcome.name + (f"({arguments['column']})" if "column" in arguments else "")
    expected = ", ".join(f"{k} {v}" for k, v in arguments.items() if k not in UNSAID and v is not None)
    told = what + (f" [{expected}]" if expected else "")
    samples: list[str] = []
    if outcome.trouble:
        told += f": could not be evaluated: {outcome.trouble}"
    elif outcome.check.offending:
        told += f": {outcome.unexpected:,} rows"
        samples = _samples(session, f"SELECT * FROM audited WHERE {outcome.check.offending}", version)
    elif outcome.observed is not None:
        told += f": found {outcome.observed}"
    if outcome.name == "expect_table_row_count_to_equal":
        kept = "SELECT order_id FROM audited WHERE order_id IS NOT NULL"
        lost = f"SELECT * FROM {landed} WHERE order_id NOT IN ({kept})"
        samples = _samples(session, lost, version)
        told += "; landed but not here" if samples else ""
    if samples:
        told += f", such as {'; '.join(samples)}"
    return {"what": what, "told": f"{told} ({outcome.check.why})", "samples": samples, "unexpected": outcome.unexpected}


def _samples(session: SparkSession, offending: str, version: int) -> list[str]:
    """Keys of a few offending rows; without an order id, what else tells where the row came from."""
    found = session.sql(
        f"WITH audited AS (SELECT * FROM {lake.at(TABLE, version)}) "
        f"SELECT {', '.join(SHOWN)} FROM ({offending}) ORDER BY ALL LIMIT {SAMPLES}"
    ).collect()
    return [", ".join(f"{name} {row[name]}" for name in SHOWN) for row in found]
