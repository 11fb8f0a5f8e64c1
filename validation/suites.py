"""What is expected of `analytics.orders`: every expectation with its threshold and the reason for it, in one place.

Ranges were read off CDNOW, the real data: over the first day, the first 7, 30, 60 and 180 days and all 18 months the
mean order costs 33.12 to 35.89 USD, its standard deviation is 31.30 to 39.15 USD, and 0 to 0.62 % of orders cost
nothing (80 of 69,659 in all). So they hold for a shop of a few days as well as for a full one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

COLUMNS = {
    "order_id": "LongType",
    "customer_id": "LongType",
    "order_date": "DateType",
    "units": "LongType",
    "total_cents": "LongType",
    "recorded_at": "TimestampType",
    "known_at": "TimestampType",
    "batch_id": "StringType",
    "loaded_at": "TimestampType",
}
MAX_CENTS = 10_000_000
"""100,000 USD. The largest real order is 1,286.01 USD: more than this is a unit or a typing mistake."""
MEAN_CENTS = (2_500, 5_000)
STDEV_CENTS = (2_000, 6_000)
NEW_MEAN_CENTS = (1_000, 10_000)
"""Days average 24.34 to 54.58 USD: dollars taken for cents, or cents for dollars, fall far outside."""
NEW_MIN_ORDERS = 30
"""Of fewer new orders, one expensive one moves the mean out of any useful range. The least real day has 44."""
PAID_SHARE = 0.98
FIRST_DAY = date(1997, 1, 1)
"""The shop's first day."""

NEW_CENTS = "new_total_cents"
"""Audit column: `total_cents` of the orders that this run brought, null for those of the base release."""


@dataclass(frozen=True)
class Check:
    """One expectation: the class in great_expectations, its arguments, why, and the rows that break it as SQL."""

    expectation: str
    why: str
    arguments: dict[str, Any]
    offending: str | None = None


def orders(as_of: date, distinct_orders: int, new_orders: int | None) -> list[Check]:
    """The suite of `analytics.orders` as of a day.

    `distinct_orders` is how many order ids have landed; `new_orders` how many rows this run merged into a base
    release, None when it built on nothing. Offending rows are SQL conditions on the relation `audited`.
    """
    checks = [
        Check(
            "ExpectTableColumnsToMatchSet",
            "the columns that consumers read; more may be added",
            {"column_set": list(COLUMNS), "exact_match": False},
        ),
        *(
            Check("ExpectColumnValuesToBeOfType", "types are part of the contract", {"column": name, "type_": kind})
            for name, kind in COLUMNS.items()
        ),
        Check(
            "ExpectTableRowCountToEqual",
            "every order that landed is here once: none lost, none twice",
            {"value": distinct_orders},
        ),
        _present("order_id"),
        Check(
            "ExpectColumnValuesToBeUnique",
            "one row for each order",
            {"column": "order_id"},
            "order_id IN (SELECT order_id FROM audited GROUP BY order_id HAVING count(*) > 1)",
        ),
        _present("customer_id"),
        _present("total_cents"),
        _between("total_cents", 0, MAX_CENTS, "no refunds here, and nothing a CD shop sells costs 100,000 USD"),
        _between("units", 1, None, "an order is of one CD at least"),
        Check(
            "ExpectColumnValuesToBeBetween",
            "orders are dated from the shop's first day to the day that the run covers",
            {"column": "order_date", "min_value": FIRST_DAY.isoformat(), "max_value": as_of.isoformat()},
            f"order_date NOT BETWEEN DATE '{FIRST_DAY}' AND DATE '{as_of}'",
        ),
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


def _present(column: str) -> Check:
    return Check("ExpectColumnValuesToNotBeNull", "always given", {"column": column}, f"{column} IS NULL")


def _between(column: str, low: int, high: int | None, why: str) -> Check:
    upper = "" if high is None else f" OR {column} > {high}"
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Check("ExpectColumnValuesToBeBetween", why, arguments, f"{column} < {low}{upper}")


def _statistic(expectation: str, column: str, bounds: tuple[int, int], why: str) -> Check:
    return Check(expectation, why, {"column": column, "min_value": bounds[0], "max_value": bounds[1]})
