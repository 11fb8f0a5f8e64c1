"""The shop's live schema against its contracts: tables, columns, kinds, and what may be null.

A database declares more types than a contract names, so kinds are compared: any integer will do for an integer. What
may be null is compared with what the last landing saw: views and many databases declare nothing, and that is no break.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingestion.database import source_checks
from ingestion.database.source import ShopError, column_type, connected, engine
from ingestion.database.sqlalchemy_internals import same_kind
from plumbline.contracts import contract as contracts
from plumbline.contracts.diff import Difference
from plumbline.product import Product
from plumbline.state import ledger

if TYPE_CHECKING:
    import sqlalchemy as sa

Seen = dict[str, dict[str, list[Any]]]
"""By table and column: the declared type, and whether it may be null (None where nothing is declared, as in a view)."""


def seen(connection: sa.Connection, product: Product) -> Seen:
    """What the shop declares today of the tables that land. Raises ShopError when it has none of them."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    views = {*inspector.get_view_names()}
    there = [name for name in product.sources if inspector.has_table(name)]
    if not there:
        names = sorted([*inspector.get_table_names(), *views])
        wanted = sorted(product.sources)
        raise ShopError(f"the shop database lacks {wanted}; it has {names}. `plumb shop load` loads the real orders.")
    return {
        name: {
            column["name"]: [column["type"], None if name in views else bool(column["nullable"])]
            for column in inspector.get_columns(name)
        }
        for name in there
    }


def stated(found: Seen) -> Seen:
    """The same for the ledger: types by their names."""
    return {table: {c: [str(kind), null] for c, (kind, null) in columns.items()} for table, columns in found.items()}


def names(table: str, found: Seen) -> dict[str, str]:
    """By the contract's columns: the name under which the shop has each of them, those that it has."""
    contract, there = contracts.shop(table), found.get(table, {})
    served = {column: [n for n in contract.accepted(column) if n in there] for column in contract.columns}
    return {column: served_by[0] for column, served_by in served.items() if served_by}


def differences(product: Product, found: Seen, before: Seen) -> list[Difference]:
    """What the shop's schema has other than its contracts; `before` is what the last landing saw, {} if none did."""
    told = []
    for table in product.sources:
        if table not in found:
            told.append(
                Difference(
                    contracts.shop(table).dataset,
                    "",
                    "missing",
                    f"the shop database lacks ['{table}']; it has {sorted(found)}",
                )
            )
        else:
            told += _of_table(table, found, before.get(table, {}))
    return told


def _of_table(table: str, found: Seen, before: dict[str, list[Any]]) -> list[Difference]:
    contract, there, served = contracts.shop(table), found[table], names(table, found)
    dataset = contract.dataset
    known = {*contract.columns, *(name for r in contract.standing() for name in (r.old, r.new))}
    added = {name: kind for name, (kind, _) in there.items() if name not in known}
    told = []
    for column in contract.columns.values():
        wanted = column_type(column)
        if column.name not in served:
            alike = [n for n, kind in added.items() if same_kind(kind, wanted)]
            expected = "" if (now := contract.accepted(column.name)) == (column.name,) else f", since then {now[0]}"
            guess = f"; {alike[0]} is new and of its kind: a rename that nobody announced?" if len(alike) == 1 else ""
            guess = _unheeded(contract, column.name) or guess
            told.append(
                Difference(
                    dataset,
                    column.name,
                    "renamed" if guess else "dropped",
                    f"the shop's table {table} lacks ['{column.name}']{expected}; it has {list(there)}{guess}",
                )
            )
            continue
        name = served[column.name]
        kind, nullable = there[name]
        if not same_kind(kind, wanted):
            told.append(
                Difference(
                    dataset,
                    column.name,
                    "retyped",
                    f"the shop's {table}.{name} is declared {kind!r}: expected {wanted!r} or another type of that kind",
                    str(kind),
                )
            )
        elif column.required and nullable and before.get(name, ["", None])[1] is False:
            told.append(
                Difference(
                    dataset,
                    column.name,
                    "nullable",
                    f"the shop's {table}.{name} may be null now, which it could not before: {contract.file} says that "
                    "it is always given",
                    str(kind),
                )
            )
    for name, kind in added.items():
        told.append(
            Difference(
                dataset,
                name,
                "added",
                f"new in the shop: {table}.{name} ({kind}); it lands, and {contract.file} does not name it yet",
                str(kind),
            )
        )
    return told


def _unheeded(contract: contracts.Contract, column: str) -> str:
    """Why a rename that the contract announces does not count, if there is one of this column."""
    for rename in contract.renames:
        if column in (rename.old, rename.new) and not rename.stands():
            return f"; {contract.file} says that {rename.told()}, which is no {contracts.NOTICE.days} days' notice"
    return ""


def of_shop(product: Product) -> list[Difference]:
    """The shop as it is now against its contracts and what the last landing saw."""
    database = engine()
    source_checks.refuse_absent(database.url)
    try:
        with connected(database) as connection:
            return differences(product, seen(connection, product), seen_before(product.name))
    finally:
        database.dispose()


def seen_before(product: str) -> Seen:
    """What the newest landing saw, by the ledger; {} before the first."""
    return (ledger.newest(product, "ingest", "COMPLETE") or {}).get("shop_schema") or {}
