"""A table held against its contract: what differs, and whether that breaks who reads it.

Additive is a column that the contract does not name, whether it lands or is left out. Breaking is one that is gone or
renamed, of another type, that may be null where it never could, or that has a name of the platform's own columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import LANDING, Contract
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.state import releases

DELTA = {"long": "bigint", "integer": "int"}
"""Delta's names of types where Spark's SQL has another."""


@dataclass(frozen=True)
class Difference:
    """`change` is missing, key, dropped, renamed, retyped, nullable, reserved, added or omitted; `told` says it."""

    dataset: str
    column: str
    change: str
    told: str
    type: str = ""

    @property
    def breaking(self) -> bool:
        """Whether a reader of the contract would be let down."""
        return self.change not in ("added", "omitted")

    def as_dict(self) -> dict[str, Any]:
        """For the ledger and for --json."""
        return {**asdict(self), "breaking": self.breaking}


def of_table(dataset: str, version: int | None = None, contract: Contract | None = None) -> list[Difference]:
    """A lake table's schema against its contract (or the one given), from the Delta log alone.

    Raises LakeError when there is no such version.
    """
    contract = contract or contracts.load(dataset)
    types = delta_types(dataset, version)
    pinned = dataset if version is None else f"{dataset}@v{version}"
    found = []
    for column in contract.columns.values():
        names = [name for name in contract.accepted(column.name) if name in types]
        if not names:
            told = f"{pinned} lacks {column.name} ({column.type}); it has {', '.join(types)}"
            found.append(Difference(dataset, column.name, "dropped", told))
        elif types[names[0]] != column.type:
            told = f"{pinned}.{names[0]} is {types[names[0]]}, expected {column.type}"
            found.append(Difference(dataset, column.name, "retyped", told, types[names[0]]))
    known = {name for column in contract.columns for name in (column, *contract.accepted(column))}
    known |= {name for rename in contract.standing() for name in (rename.old, rename.new)}
    for name, kind in types.items():
        if name not in known:
            told = f"{pinned}.{name} ({kind}) is not in {contract.file}"
            found.append(Difference(dataset, name, "added", told, kind))
    return found


def delta_types(table: str, version: int | None = None) -> dict[str, str]:
    """Each column's type as Spark's SQL calls it."""
    found = {}
    for field in lake.open_table(table, version).schema().fields:
        kind = str(getattr(field.type, "type", field.type))
        if kind == "array":
            kind = f"array<{getattr(field.type.element_type, 'type', field.type.element_type)}>"
        found[field.name] = DELTA.get(kind, kind)
    return found


def of_lake(product: Product) -> list[Difference]:
    """Every lake table in force against its contract; raw tables against the shop's, with what landing adds."""
    release = releases.in_force(product.name)
    found = []
    for dataset in release.tables if release else ():
        version = release.version(dataset) if release else None
        if dataset in product.appended and dataset not in product.contracted:
            continue  # the stream's own books
        if dataset.startswith("raw."):
            promised = contracts.shop(dataset.partition(".")[2])
            own = of_table(dataset, version, promised)
            found += [d for d in own if not (d.change == "added" and _ours(d.column))]
        elif dataset in product.contracted:
            found += of_table(dataset, version)
    return found


def refuse_breaking(found: list[Difference]) -> None:
    """Raises GateFailed that names each breaking difference, if there is one."""
    if broken := [difference.told for difference in found if difference.breaking]:
        raise GateFailed(
            "what is there is not what the contracts say:\n  "
            + "\n  ".join(broken)
            + "\n  Announce and mend: docs/contracts-and-quarantine.md."
        )


def summary(found: list[Difference]) -> Mapping[str, int]:
    """How many differences are breaking and additive."""
    breaking = sum(difference.breaking for difference in found)
    return {"breaking": breaking, "additive": len(found) - breaking}


def _ours(column: str) -> bool:
    return column in LANDING or column.startswith("_dlt_")
