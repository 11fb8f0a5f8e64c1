"""What a product's contracts promise, as the limits that its panels show."""

from __future__ import annotations

from datetime import timedelta

from observability import promises
from observability.dataset_metrics import datasets, table_of
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.product import Product

ORDER = ("raw", "clean", "analytics", "features", "serving")
"""The lake's schemas, in the order in which data moves."""


def tables(product: Product) -> dict[str, Contract]:
    """The lake's table of every contracted dataset, in the order in which data moves."""
    found = {table_of(contract): contract for contract in datasets([product])}
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0].partition(".")[0]), item[0])))


def daily_tables(product: Product) -> list[str]:
    """Those that a day brings anew: all but the log of what was served."""
    return [table for table in tables(product) if not table.startswith("serving.")]


def oldest(product: Product) -> timedelta | None:
    """How old its features in force may be: a day, and the time of day by which the next ones are promised.

    None when its contract promises no time.
    """
    promised = promises.deadline(contracts.load(product.features))
    return None if promised is None else timedelta(days=1) + promised


def late_days(product: Product) -> float:
    """Of the last `promises.DAYS` days, how many may be late."""
    return promises.late_days_allowed(contracts.load(product.features))


def complete_columns(product: Product) -> dict[str, tuple[str, ...]]:
    """The columns of each table that its contract promises to be there."""
    found = {table: promises.complete(contract) for table, contract in tables(product).items()}
    return {table: promised[1] for table, promised in found.items() if promised is not None}


def incomplete(product: Product) -> float:
    """The smallest share of records that any contract lets lack such a column, of those that let any."""
    found = [promises.complete(contract) for contract in datasets([product])]
    return min(promised[0].budget for promised in found if promised is not None and promised[0].budget)
