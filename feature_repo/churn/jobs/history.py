"""What a changed definition means for snapshots that exist: history is computed anew, beside the old, and compared.

A new feature without a past cannot be trained on. So when customers.sql is not what the base release's rows were made
with, the job computes every snapshot again, each from the orders that were known by its day, as a new Delta version;
the released one stays as it was. Then both are held against each other, row by row and column by column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from plumbline.lake import tables as lake
from plumbline.state import ledger
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from products.churn import CHURN

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GATE = "features_history"
TABLE = "features.customers"
KEY = ("customer_id", "snapshot_date")
BOOKKEEPING = ("created_at", "release_id")
"""Which run wrote a row: of course another one."""


@dataclass(frozen=True)
class Comparison:
    """The released history against the same days computed anew: rows on both sides, in how many a column differs."""

    rows: int
    added: int
    removed: int
    differing: dict[str, int]
    columns: list[str]
    new_columns: list[str]
    lost_columns: list[str]

    @property
    def same(self) -> bool:
        """Whether every released row is there, no other is, and every column that is still there holds what it held."""
        return not (self.added or self.removed or self.differing)

    def told(self) -> str:
        """One sentence of what differs, or that nothing does."""
        if self.same:
            return f"{len(self.columns)} columns of {self.rows:,} released rows came out the same"
        parts = [f"{name} in {count:,} of {self.rows:,} rows" for name, count in self.differing.items()]
        parts += [f"{count:,} rows {what}" for what, count in (("added", self.added), ("lost", self.removed)) if count]
        return "not as released: " + ", ".join(parts)


def definition(sql: str) -> str:
    """The SQL without comments and line breaks: what must be equal for rows to have been made in the same way."""
    return " ".join(re.sub(r"--.*", "", sql).split())


def recorded(release: Release) -> str | None:
    """The definition that made a release's rows, from the ledger; None when it was not recorded."""
    event = ledger.written_by(CHURN, TABLE, release.version(TABLE))
    found = (event or {}).get("definition")
    return str(found) if found is not None else None


def only_adds(before: str | None, after: str) -> bool:
    """Whether every expression, join and condition of the old SQL is in the new one, so that no old column may move."""
    return before is not None and _pieces(before) <= _pieces(after)


def compare(session: SparkSession, before: int, after: int, until: date) -> Comparison:
    """Holds two versions of the table against each other, on the days up to `until`. Missing equals missing."""
    old, new = ({field.name for field in lake.open_table(TABLE, v).schema().fields} for v in (before, after))
    columns = sorted((old & new) - {*KEY, *BOOKKEEPING})
    counted = ", ".join(f"count_if(in_old AND in_new AND NOT (o.{name} <=> n.{name})) AS {name}" for name in columns)
    both = " AND ".join(f"o.{name} = n.{name}" for name in KEY)
    row = session.sql(
        f"SELECT count_if(in_new) AS computed, count_if(in_new IS NULL) AS removed, {counted} "
        f"FROM (SELECT *, true AS in_old FROM {lake.at(TABLE, before)}) AS o FULL OUTER JOIN "
        f"(SELECT *, true AS in_new FROM {lake.at(TABLE, after)} WHERE snapshot_date <= DATE '{until}') AS n ON {both}"
    ).collect()[0]
    kept = lake.rows(TABLE, before) - row["removed"]
    return Comparison(
        rows=kept,
        added=row["computed"] - kept,  # a key that comes twice is one row too many
        removed=row["removed"],
        differing={name: row[name] for name in columns if row[name]},
        columns=columns,
        new_columns=sorted(new - old),
        lost_columns=sorted(old - new),
    )


def judge(found: Comparison, additive: bool) -> Verdict:
    """The gate's verdict: a change that only adds must leave the rest as it was; any other says what it moved."""
    passed, told = found.same or not additive, found.told()
    extra = {
        "change": "adds columns only" if additive else "changes expressions, or what it was is not recorded",
        "told": told,
        "new_columns": found.new_columns,
        "lost_columns": found.lost_columns,
        "differing": found.differing,
    }
    return Verdict(GATE, passed, len(found.columns), () if passed else (told,), extra=extra)


def _pieces(sql: str) -> set[tuple[str, str, str]]:
    """Every SELECT taken apart: (which one, which clause, its text)."""
    from sqlglot import exp, parse_one

    found = set()
    for select in parse_one(re.sub(r"\{(\w+)\}", r"\1", sql), dialect="spark").find_all(exp.Select):
        name = select.parent.alias if isinstance(select.parent, exp.CTE) else ""
        for clause, value in select.args.items():
            if clause.startswith("with"):
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, exp.Expression):
                    found.add((name, clause, part.sql(dialect="spark")))
    return found
