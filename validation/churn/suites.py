"""What is expected of `analytics.orders`: the structure from its contract, statistics with the reason for each.

Columns, types, what is always given or unique, and ranges are the contract's (contracts/analytics.orders.odcs.yaml).
Ranges were read off CDNOW, the real data: over the first day, the first 7, 30, 60 and 180 days and all 18 months the
mean order costs 33.12 to 35.89 USD, its standard deviation is 31.30 to 39.15 USD, and 0 to 0.62 % of orders cost
nothing (80 of 69,659 in all). So they hold for a shop of a few days as well as for a full one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column
from plumbline.pipeline.stage import StageRun
from validation.audit import Suite, audit
from validation.expectations import Check

TABLE, RETURNS = "analytics.orders", "analytics.returns"
SPARK_TYPES = {
    "bigint": "LongType",
    "int": "IntegerType",
    "float": "FloatType",
    "double": "DoubleType",
    "date": "DateType",
    "timestamp": "TimestampType",
    "string": "StringType",
    "boolean": "BooleanType",
}
MEAN_CENTS = (2_500, 5_000)
STDEV_CENTS = (2_000, 6_000)
NEW_MEAN_CENTS = (1_000, 10_000)
"""Days average 24.34 to 54.58 USD: dollars taken for cents, or cents for dollars, fall far outside."""
NEW_MIN_ORDERS = 30
"""Of fewer new orders, one expensive one moves the mean out of any useful range. The least real day has 44."""
PAID_SHARE = 0.98
NEW_CENTS = "new_total_cents"
"""Audit column: `total_cents` of the orders that this run brought, null for those of the base release."""


def orders(as_of: date, distinct_orders: int, new_orders: int | None) -> list[Check]:
    """The suite of `analytics.orders` as of a day.

    `distinct_orders` is how many order ids have landed; `new_orders` how many rows this run merged into a base
    release, None when it built on nothing. Offending rows are SQL conditions on the relation `audited`.
    """
    checks = [
        *promised(TABLE, as_of, distinct_orders),
        Check(
            "ExpectColumnValuesToBeBetween",
            "few orders are free: 0.62 % in the worst real week",
            {"column": "total_cents", "min_value": 1, "mostly": PAID_SHARE},
            "total_cents < 1",
        ),
        _statistic("ExpectColumnMeanToBeBetween", "total_cents", MEAN_CENTS, "33 to 36 USD in the real data"),
        _statistic("ExpectColumnStdevToBeBetween", "total_cents", STDEV_CENTS, "31 to 39 USD in the real data"),
    ]
    if new_orders is not None and new_orders >= NEW_MIN_ORDERS:
        why = "what this run brought looks like orders did before: 24 to 55 USD on real days"
        checks.append(_statistic("ExpectColumnMeanToBeBetween", NEW_CENTS, NEW_MEAN_CENTS, why))
    return checks


def promised(table: str, as_of: date, landed: int) -> list[Check]:
    """What any mart's contract promises, and that each of its keys that landed is there once."""
    contract = contracts.load(table)
    return [
        Check(
            "ExpectTableColumnsToMatchSet",
            "the columns that consumers read; more may be added",
            {"column_set": list(contract.columns), "exact_match": False},
        ),
        *(
            Check("ExpectColumnValuesToBeOfType", "types are part of the contract", {"column": name, "type_": kind})
            for name, kind in columns(table).items()
        ),
        Check(
            "ExpectTableRowCountToEqual",
            "every row that landed is here once: none lost, none twice",
            {"value": landed},
        ),
        *(check for column in contract.columns.values() for check in _promises(table, column, as_of)),
    ]


def columns(table: str = TABLE) -> dict[str, str]:
    """The contract's columns, each with the name of its type in Spark."""
    return {name: SPARK_TYPES[column.type] for name, column in contracts.load(table).columns.items()}


def _promises(table: str, column: Column, as_of: date) -> Iterator[Check]:
    """What the contract promises of a column's values, as expectations."""
    name, why = column.name, column.why or column.description
    if column.required:
        yield Check("ExpectColumnValuesToNotBeNull", "always given", {"column": name}, f"{name} IS NULL")
    if column.unique:
        yield Check(
            "ExpectColumnValuesToBeUnique",
            "one row for each",
            {"column": name},
            f"{name} IN (SELECT {name} FROM audited GROUP BY {name} HAVING count(*) > 1)",
        )
    low, high = column.minimum, column.maximum
    if column.not_after_run:
        last = contracts.calendar(table).last_date(as_of).isoformat()
        high = last if high is None else min(str(high), last)
    if low is not None or high is not None:
        offending = [f"{name} {sign} {_literal(end)}" for sign, end in (("<", low), (">", high)) if end is not None]
        arguments = {"column": name, "min_value": low, "max_value": high}
        yield Check("ExpectColumnValuesToBeBetween", why, arguments, " OR ".join(offending))


def _literal(value: float | str) -> str:
    if not isinstance(value, str):
        return str(value)
    return f"{'DATE' if len(value) == len('1997-01-31') else 'TIMESTAMP'} '{value}'"


def _statistic(expectation: str, column: str, bounds: tuple[int, int], why: str) -> Check:
    return Check(expectation, why, {"column": column, "min_value": bounds[0], "max_value": bounds[1]})


SUITES: dict[str, Suite] = {
    TABLE: Suite(orders, ("order_id", "customer_id", "order_date", "total_cents", "batch_id"), news="total_cents"),
    RETURNS: Suite(lambda day, landed, new: promised(RETURNS, day, landed), ("order_id",)),
}
"""The marts that are audited. `promised` is enough for one whose contract says it all."""


def check(run: StageRun) -> str:
    """The gate `ge_check`. Raises GateFailed."""
    return audit(run, SUITES)
