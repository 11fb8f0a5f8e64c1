"""The shop's live schema against its contracts: tables, columns, kinds, and what may be null.

A database declares more types than a contract names, so kinds are compared: any integer will do for an integer. What
may be null is compared with what the last landing saw: views and many databases declare nothing, and that is no break.
A column that the contract does not name lands beside what raw holds of it, in the same type, or the batch does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ingestion.database import source_checks
from ingestion.database.landed_columns import landed_name, landed_type, reserved
from ingestion.database.source import ShopError, column_type, connected, engine
from ingestion.database.source_checks import base_type
from ingestion.database.sqlalchemy_internals import same_kind
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED
from plumbline.contracts.diff import Difference
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.shop import loading, page
from plumbline.state import ledger

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

Seen = dict[str, dict[str, list[Any]]]
"""By table and column: the declared type, and whether it may be null (None where nothing is declared, as in a view)."""


def seen(connection: sa.Connection, product: Product) -> Seen:
    """What the shop declares today of the tables that land. Raises ShopError when it has none of them, and
    SettingsError, before anything lands, when the shop's page cannot be read.
    """
    import sqlalchemy as sa

    page()
    inspector = sa.inspect(connection)
    views = {*inspector.get_view_names()}
    there = [name for name in product.sources if inspector.has_table(name)]
    if not there:
        names = sorted([*inspector.get_table_names(), *views])
        wanted = sorted(product.sources)
        raise ShopError(f"the shop database lacks {wanted}; it has {names}{loading()}")
    return {
        name: {
            column["name"]: [
                declared_type(contracts.shop(name), column["name"], column["type"], inspector.dialect.name),
                None if name in views else bool(column["nullable"]),
            ]
            for column in inspector.get_columns(name)
        }
        for name in there
    }


def declared_type(contract: contracts.Contract, name: str, declared: TypeEngine[Any], dialect: str) -> TypeEngine[Any]:
    """A column's type. An expression in a view of SQLite has none, even a cast: there the contract's type counts,
    and the record gate holds each value against it.
    """
    from sqlalchemy.types import NullType

    promised = next((c for c in contract.columns.values() if name in contract.accepted(c.name)), None)
    untyped = dialect == "sqlite" and isinstance(declared, NullType)
    return column_type(promised) if untyped and promised is not None else declared


def stated(seen: Seen) -> Seen:
    """The same for the ledger: types by their names."""
    return {table: {c: [str(kind), null] for c, (kind, null) in columns.items()} for table, columns in seen.items()}


def names(table: str, seen: Seen) -> dict[str, str]:
    """By the contract's columns: the name under which the shop has each of them, those that it has."""
    contract, there = contracts.shop(table), seen.get(table, {})
    served = {column: [n for n in contract.accepted(column) if n in there] for column in contract.columns}
    return {column: served_by[0] for column, served_by in served.items() if served_by}


def landing_columns(table: str, seen: Seen) -> list[str]:
    """The shop's columns of a table that land, by the shop's names: all but those that a contract or a type leaves out.

    Their types are read with `base_type`, for a domain lands as what it is based on.
    """
    contract, promised = contracts.shop(table), {*names(table, seen).values()}
    return [
        name
        for name, (kind, _) in seen[table].items()
        if name in promised or (name not in contract.left_out and landed_type(kind))
    ]


def differences(product: Product, seen: Seen, before: Seen) -> list[Difference]:
    """What the shop's schema has other than its contracts; `before` is what the last landing saw, {} if none did."""
    different = []
    for table in product.sources:
        if table not in seen:
            different.append(
                Difference(
                    contracts.shop(table).dataset,
                    "",
                    "missing",
                    f"the shop database lacks ['{table}']; it has {sorted(seen)}",
                )
            )
        else:
            different += _counted(product, table)
            different += _promised(table, seen, before.get(table, {}))
            different += _added(table, seen)
    return different


def _counted(product: Product, table: str) -> Iterator[Difference]:
    """A table whose key is not that of the mart made of it: there, rows that share the mart's key would be one."""
    contract, mart = contracts.shop(table), f"analytics.{table}"
    if mart in product.marts and (counted := contracts.load(mart).key) != contract.key:
        one = ", ".join(counted)
        told = (
            f"{contract.file} tells rows of {table} apart by {', '.join(contract.key)}, but {mart} counts them by "
            f"{one}: rows that share it would be one. Offer a view that has another {one} in each row"
        )
        yield Difference(contract.dataset, "", "key", told)


def _promised(table: str, seen: Seen, before: dict[str, list[Any]]) -> Iterator[Difference]:
    """What a table has other than its contract promises."""
    contract, there, served = contracts.shop(table), seen[table], names(table, seen)
    known = _known(contract)
    new = {name: kind for name, (kind, _) in there.items() if name not in known}
    for column in contract.columns.values():
        wanted = column_type(column)
        if column.name not in served:
            alike = [n for n, kind in new.items() if same_kind(base_type(kind), wanted)]
            expected = "" if (now := contract.accepted(column.name)) == (column.name,) else f", since then {now[0]}"
            guess = f"; {alike[0]} is new and of its kind: a rename that nobody announced?" if len(alike) == 1 else ""
            guess = _unheeded(contract, column.name) or guess
            told = f"the shop's table {table} lacks ['{column.name}']{expected}; it has {list(there)}{guess}"
            yield Difference(contract.dataset, column.name, "renamed" if guess else "dropped", told)
            continue
        name = served[column.name]
        kind, nullable = there[name]
        if not same_kind(base_type(kind), wanted):
            told = (
                f"the shop's {table}.{name} is declared {kind!r}: expected {wanted!r} or another type of that kind; "
                f"a view that casts it does as well as a table"
            )
            yield Difference(contract.dataset, column.name, "retyped", told, str(kind))
        elif column.required and nullable and before.get(name, ["", None])[1] is False:
            told = (
                f"the shop's {table}.{name} may be null now, which it could not before: {contract.file} says that "
                "it is always given"
            )
            yield Difference(contract.dataset, column.name, "nullable", told, str(kind))


def _added(table: str, seen: Seen) -> Iterator[Difference]:
    """The columns that a table's contract does not name: whether and how they land beside what raw has."""
    contract, raw = contracts.shop(table), raw_types(table)
    known = _known(contract)
    landed = {landed_name(name) for name in seen[table] if name in known}
    way_on = f"rename it in a view, or name it in leftOut of {contract.file}"
    for name, (kind, _) in seen[table].items():
        if name in known or name in contract.left_out:
            continue
        place, type_, column = f"{table}.{name}", landed_type(kind), landed_name(name)
        if reserved(name) or (column == RECORDED != contract.recorded):
            told = f"the shop's {place} would land as {column}, a name of the platform's own columns: {way_on}"
            yield Difference(contract.dataset, name, "reserved", told, str(kind))
        elif column in landed:
            told = f"the shop's {place} would land as {column}, which another of its columns does already: {way_on}"
            yield Difference(contract.dataset, name, "reserved", told, str(kind))
        elif type_ is None:
            told = f"left out: {place} ({kind}), for raw has no such type; a view that casts it to text would let it in"
            yield Difference(contract.dataset, name, "omitted", told, str(kind))
        elif column in raw and raw[column] != type_:
            told = (
                f"the shop's {place} is {kind} now, which lands as {type_}; raw.{table}.{column} holds {raw[column]}, "
                f"and values would be cut or lost: deliver it under a new name, cast it back in a view, or name it in "
                f"leftOut of {contract.file}"
            )
            yield Difference(contract.dataset, name, "retyped", told, str(kind))
        else:
            told = f"new in the shop: {place} ({kind}); it lands, and {contract.file} does not name it yet"
            yield Difference(contract.dataset, name, "added", told, str(kind))
        landed.add(column)


def _known(contract: contracts.Contract) -> set[str]:
    """The columns that a contract names, under each name that it announces for them."""
    return {*contract.columns, *(name for r in contract.standing() for name in (r.old, r.new))}


def raw_types(table: str) -> dict[str, str]:
    """The columns of a raw table with their types, as Delta calls them; none before the first landing."""
    name = f"raw.{table}"
    if lake.version(name) is None:
        return {}
    return {f.name: str(getattr(f.type, "type", f.type)) for f in lake.open_table(name).schema().fields}


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
