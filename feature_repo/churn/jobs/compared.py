"""Two sets of snapshot rows held against each other, column by column: how many differ, and one row of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.churn.jobs.history import BOOKKEEPING, KEY

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class Compared:
    """`rows` looked at, `only` those that one side lacks, `differing` rows by column, `examples` one row of each."""

    rows: int
    only: int
    columns: list[str]
    differing: dict[str, int]
    examples: dict[str, Any]

    @property
    def same(self) -> bool:
        """Whether both sides have the same rows, with the same value in every column."""
        return not (self.differing or self.only)

    def phrases(self, left: str, right: str) -> list[str]:
        """A phrase for each column that differs, naming a customer, a day and both values with what they are by."""
        phrases = [f"{self.only:,} rows are there on one side only"] if self.only else []
        for name, count in self.differing.items():
            row = self.examples[name]
            phrases.append(
                f"{name} in {count:,} of {self.rows:,} rows, such as customer {row['customer_id']} on "
                f"{row['snapshot_date']}: {row['l']}{left}, and {row['r']} {right}"
            )
        return phrases


def compare(session: SparkSession, left: DataFrame, right: DataFrame) -> Compared:
    """Compares every column that the left side has, but for which run wrote it. Missing equals missing."""
    columns = [name for name in left.columns if name not in {*KEY, *BOOKKEEPING}]
    differs = {name: f"l_in AND r_in AND NOT (l.{name} <=> r.{name})" for name in columns}
    key = ", ".join(f"l.{name}" for name in KEY)
    examples = {
        name: f"min_by(struct({key}, l.{name} AS l, r.{name} AS r), struct({key})) FILTER (WHERE {test})"
        for name, test in differs.items()
    }
    row = session.sql(
        "SELECT count(*) AS rows, count_if(l_in IS NULL OR r_in IS NULL) AS only, "
        + ", ".join(f"count_if({test}) AS n_{name}, {examples[name]} AS e_{name}" for name, test in differs.items())
        + " FROM (SELECT *, true AS l_in FROM {left}) AS l"
        + " FULL OUTER JOIN (SELECT *, true AS r_in FROM {right}) AS r ON "
        + " AND ".join(f"l.{name} = r.{name}" for name in KEY),
        left=left,
        right=right,
    ).collect()[0]
    differing = {name: row[f"n_{name}"] for name in columns if row[f"n_{name}"]}
    return Compared(row["rows"], row["only"], columns, differing, {name: row[f"e_{name}"] for name in differing})
