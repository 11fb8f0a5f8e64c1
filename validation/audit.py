"""Great Expectations over exactly the version of a mart that the run wrote: one gate a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline import clock, observed
from plumbline.contracts.contract import VERSION_ORDER
from plumbline.errors import GateFailed
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.observed import Assertion
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.verdict import Verdict
from validation.expectations import Check, Outcome, docs, validate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLES = 5
UNSAID = {"column", "column_set", "exact_match"}


@dataclass(frozen=True)
class Suite:
    """What is expected of a mart. `checks` gets the day, how many keys have landed and were not deleted, and how many
    rows this run merged into a base release (None when it built on nothing).

    `shown` are the columns by which messages name a row, its key first. `news` names a column whose new values are
    audited by themselves, as `new_<column>`: null for the rows of the base release.
    """

    checks: Callable[[date, int, int | None], list[Check]]
    shown: tuple[str, ...]
    news: str = ""


def audit(run: StageRun, suites: Mapping[str, Suite]) -> str:
    """Audits each mart that has a suite; one sentence when all expectations hold.

    Raises GateFailed that names each failed expectation, its rows and some of their keys. Either way each suite's
    verdict is in `run.gates`, as `<mart>_expectations`, with its evidence.
    """
    broken, held = [], []
    for table, suite in suites.items():
        verdict, told = _audit(run, table, suite)
        pinned = f"{table}@v{run.pin(table)}"
        held.append(f"all {verdict.expectations} expectations of {pinned} hold")
        if told:
            broken.append(
                f"{len(told)} of {verdict.expectations} expectations of {pinned} failed, nothing is published:\n  "
                + "\n  ".join(told)
                + f"\n  Evidence: {verdict.report}; report: {docs()}."
            )
    if broken:
        raise GateFailed(
            "\n".join(broken) + "\n  What was landed is set aside: mend the data at its source and start over with "
            f"`plumb ingest --as-of {run.as_of}`."
        )
    return "; ".join(held)


def _audit(run: StageRun, table: str, suite: Suite) -> tuple[Verdict, list[str]]:
    """A suite's verdict, and a sentence for each expectation that does not hold."""
    name, key = table.partition(".")[2], suite.shown[0]
    raw = f"raw.{name}"
    version, landed = run.pin(table), run.pin(raw)
    session = spark.session()
    say(f"Great Expectations over {table}@v{version}")
    distinct = (
        session.sql(
            "SELECT count_if(NOT deleted) AS n FROM (SELECT max_by(deleted_at IS NOT NULL, "
            f"struct({', '.join(VERSION_ORDER)})) AS deleted FROM {run.raw(raw)} GROUP BY {key})"
        )
        .collect()[0]
        .n
    )
    checks = suite.checks(run.as_of, distinct, _new_rows(run, table))
    audited = _audited(session, run, table, version, suite.news)
    outcomes = validate(table, f"{run.candidate.run_id}@v{version}", audited, checks)
    for outcome in outcomes:
        seen = outcome.unexpected if outcome.observed is None else outcome.observed
        column = outcome.check.arguments.get("column")
        actual = None if seen is None else str(seen)[:200]
        observed.asserted(table, Assertion(outcome.check.expectation, outcome.success, column, actual=actual))
    rows = _Rows(session, lake.at(table, version), run.raw(raw), suite.shown)
    findings = [_finding(rows, outcome) for outcome in outcomes if not outcome.success]
    verdict = gates.record(
        run,
        Verdict(f"{name}_expectations", not findings, len(outcomes), tuple(finding["what"] for finding in findings)),
        {
            "versions": {table: version, raw: landed},
            "findings": findings,
            "outcomes": [outcome.as_dict() for outcome in outcomes],
        },
    )
    return verdict, [finding["told"] for finding in findings]


def _new_rows(run: StageRun, table: str) -> int | None:
    """How many rows dbt merged on top of the base release; None when it built from nothing."""
    if run.base is None or table not in run.base.tables:
        return None
    rows = run.candidate.stages.get("dbt_run", {}).get("rows", {})
    return int(rows.get(table, 0))


def _audited(session: SparkSession, run: StageRun, table: str, version: int, news: str) -> DataFrame:
    """The mart at its version; with the audit column of new rows' values when there is a base release.

    What a run lands has a `known_at` behind its base's last day, however the row is dated.
    """
    frame = session.sql(f"SELECT * FROM {lake.at(table, version)}")
    if run.base is None or not news:
        return frame
    opened = f"TIMESTAMP '{clock.end_of(run.base.as_of):%Y-%m-%d %H:%M:%S+00:00}'"
    return frame.selectExpr("*", f"CASE WHEN known_at >= {opened} THEN {news} END AS new_{news}")


@dataclass(frozen=True)
class _Rows:
    """Where the rows of findings are read: the mart as a relation, what landed, and the columns that name a row."""

    session: SparkSession
    mart: str
    landed: str
    shown: tuple[str, ...]

    def samples(self, offending: str) -> list[str]:
        """Keys of a few offending rows; without a key, what else tells where the row came from."""
        found = self.session.sql(
            f"WITH audited AS (SELECT * FROM {self.mart}) "
            f"SELECT {', '.join(self.shown)} FROM ({offending}) ORDER BY ALL LIMIT {SAMPLES}"
        ).collect()
        return [", ".join(f"{name} {row[name]}" for name in self.shown) for row in found]


def _finding(rows: _Rows, outcome: Outcome) -> dict[str, Any]:
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
        samples = rows.samples(f"SELECT * FROM audited WHERE {outcome.check.offending}")
    elif outcome.observed is not None:
        told += f": found {outcome.observed}"
    if outcome.name == "expect_table_row_count_to_equal":
        key = rows.shown[0]
        kept = f"SELECT {key} FROM audited WHERE {key} IS NOT NULL"
        samples = rows.samples(f"SELECT * FROM {rows.landed} WHERE {key} NOT IN ({kept})")
        told += "; landed but not here" if samples else ""
    if samples:
        told += f", such as {'; '.join(samples)}"
    return {"what": what, "told": f"{told} ({outcome.check.why})", "samples": samples, "unexpected": outcome.unexpected}
