"""What the contracts promise, as the limits that panels show."""

from __future__ import annotations

from plumbline import contracts
from plumbline.contracts import Contract, ContractError
from plumbline.metrics import datasets, table_of

DAY = 86_400
FEATURES = "features.customers"
ORDER = ("raw", "analytics", "features", "serving")
"""The lake's schemas, in the order in which data moves."""


def tables() -> dict[str, Contract]:
    """The lake's table of every contracted dataset, in the order in which data moves."""
    found = {table_of(contract): contract for contract in datasets()}
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0].partition(".")[0]), item[0])))


def prefix(table: str) -> str:
    """What the names of a table's metrics begin with."""
    return table.replace(".", "_")


def oldest_seconds() -> int:
    """How old the features in force may be: a day, and the time of day by which the next ones are promised."""
    hours, minutes = _level(FEATURES, "timeOfAvailability").split(":")
    return DAY + 3600 * int(hours) + 60 * int(minutes)


def late_days(due: int) -> float:
    """Of that many days, how many may be late."""
    contract = contracts.load(FEATURES)
    objective = next(level.objective for level in contract.levels if level.property == "timeOfAvailability")
    if objective is None:
        raise ContractError(f"{contract.file}: timeOfAvailability names no objective")
    return due * (100 - objective) / 100


def complete_columns() -> dict[tuple[str, str], float]:
    """(table, column) → the share of its records that may lack it."""
    return {
        (table, column.strip()): (100 - float(level.value)) / 100
        for table, contract in tables().items()
        for level in contract.levels
        if level.property == "completeness"
        for column in level.element.split(",")
    }


def _level(dataset: str, name: str) -> str:
    contract = contracts.load(dataset)
    return str(next(level.value for level in contract.levels if level.property == name))
