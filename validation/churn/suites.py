"""What is expected of `analytics.orders`: the structure from its contract, statistics with the reason for each.

Columns, types, what is always given or unique, and ranges are the contracts'. Means and deviations are the shop's own:
as its page states them, or learned from the base release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import partial

from plumbline import shop
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column
from plumbline.lake import tables as lake
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
LEARNED = 3
"""A day's mean may be so many times the released mean, or the released mean that of a day: CDNOW's days reach 1.6.
Dollars taken for cents are at 100."""
NEW_MIN_ORDERS = 30
"""Of fewer new orders, one expensive one moves the mean out of any useful range."""
EXPECTED = "as the shop's page (shop.yaml, expected) states with its reason"
NEW_CENTS = "new_total_cents"
"""Audit column: `total_cents` of the orders that this run brought, null for those of the base release."""


def orders(
    as_of: date, distinct_orders: int, new_orders: int | None, released_mean: float | None = None
) -> list[Check]:
    """The suite of `analytics.orders` as of a day.

    `distinct_orders` is how many order ids have landed; `new_orders` how many rows this run merged into a base
    release, None when it built on nothing; `released_mean` the mean of `total_cents` there. Offending rows are SQL
    conditions on the relation `audited`.
    """
    expected = shop.page().expected
    checks = promised(TABLE, as_of, distinct_orders)
    if expected:
        paid = {"column": "total_cents", "min_value": 1, "mostly": expected.paid_share}
        checks += [
            Check("ExpectColumnValuesToBeBetween", "few orders are free", paid, "total_cents < 1"),
            _statistic("ExpectColumnMeanToBeBetween", "total_cents", expected.mean_cents, EXPECTED),
            _statistic("ExpectColumnStdevToBeBetween", "total_cents", expected.stdev_cents, EXPECTED),
        ]
    if new_orders is not None and new_orders >= NEW_MIN_ORDERS:
        if expected:
            why, bounds = f"what this run brought looks like orders did before; {EXPECTED}", expected.new_mean_cents
            checks.append(_statistic("ExpectColumnMeanToBeBetween", NEW_CENTS, bounds, why))
        elif released_mean:
            why = f"what this run brought costs at most {LEARNED} times as much or as little as released orders"
            bounds = (int(released_mean / LEARNED), int(released_mean * LEARNED))
            checks.append(_statistic("ExpectColumnMeanToBeBetween", NEW_CENTS, bounds, why))
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
    source = contracts.calendar(table)
    of_shop = source.columns.get(name)
    stated = [column] if of_shop is None or of_shop.kind != column.kind else [column, of_shop]
    low = max((one.minimum for one in stated if one.minimum is not None), default=None)
    high = min((one.maximum for one in stated if one.maximum is not None), default=None)
    if column.not_after_run:
        last = source.last_date(as_of).isoformat()
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
    learned = partial(orders, released_mean=None if shop.page().expected else _released_mean(run))
    return audit(run, {**SUITES, TABLE: replace(SUITES[TABLE], checks=learned)})


def _released_mean(run: StageRun) -> float | None:
    """The mean of `total_cents` in the base release; None where there is none."""
    import pyarrow.compute as pc

    if run.base is None or TABLE not in run.base.tables:
        return None
    cents = lake.open_table(TABLE, run.base.tables[TABLE]).to_pyarrow_table(columns=["total_cents"])["total_cents"]
    mean: float | None = pc.mean(cents).as_py()
    return mean
