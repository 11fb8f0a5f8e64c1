"""`plumb contract draft`: the first contracts and the page of a shop, from the tables of its database that land.

What a database does not say is guessed from its rows, and each guess is marked with a comment `CONFIRM`: a person reads
them before the first landing. Nothing is landed, and nothing that is there is written over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.database.landed_columns import reserved
from ingestion.database.source import ShopError, address, connected, engine
from ingestion.database.source_checks import kind_of, refuse_absent
from ingestion.database.source_schema import declared_type
from plumbline import clock, files
from plumbline.contracts import contract as contracts
from plumbline.contracts import odcs
from plumbline.contracts.contract import NAME, RECORDED, SUFFIX, Contract
from plumbline.product import Product
from plumbline.shop import FILE

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

PHYSICAL = {
    "integer": "bigint",
    "number": "double",
    "date": "date",
    "timestamp": "timestamp",
    "string": "string",
    "boolean": "boolean",
}
TIMES = (RECORDED, "updated_at", "modified_at", "created_at", "inserted_at")
"""How columns are called that say when a row was recorded, the likeliest first."""

DAY = re.compile(r"^\d{4}-\d{2}-\d{2}$")


@dataclass
class Seen:
    """A column as declared and as its rows are: nulls and different values of the table's rows, least, greatest."""

    name: str
    kind: str | None
    declared: str
    nullable: bool
    nulls: int = 0
    different: int = 0
    least: Any = None
    greatest: Any = None


@dataclass
class Table:
    """A table or view that the database shows."""

    name: str
    rows: int
    columns: list[Seen]
    key: list[str]
    key_declared: bool
    left_out: list[Seen] = field(default_factory=list)

    @property
    def recorded(self) -> str:
        """The column that says when a row was recorded, by its name and kind; none without one."""
        given = {c.name: c.kind for c in self.columns if not c.nulls}
        named = [name for name in TIMES if given.get(name) in ("timestamp", "date")]
        others = [name for kind in ("timestamp", "date") for name, of in given.items() if of == kind]
        return next(iter([*named, *others]), "none")


def draft(product: Product, url: str, folder: Path) -> dict[str, Any]:
    """Writes a contract for each table that the product lands, and the shop's page; what was written.

    Raises ShopError that lists every table and column that lacks, for no key, and when a file of that name is there.
    """
    import sqlalchemy as sa

    database = engine(url)
    refuse_absent(database.url)
    try:
        with connected(database) as connection:
            inspector = sa.inspect(connection)
            expected = {name: odcs.read(contracts.folder() / f"shop.{name}{SUFFIX}") for name in product.sources}
            if lacks := [told for contract in expected.values() for told in _lacking(inspector, contract)]:
                names = sorted({*inspector.get_table_names(), *inspector.get_view_names()})
                raise ShopError(
                    f"{address(url)} does not offer what landing reads: {'; '.join(lacks)}. It shows "
                    f"{', '.join(names) or 'no table and no view to this user'}. Offer views with these names and "
                    "columns (docs/your-own.md). Nothing was written"
                )
            tables = [_table(connection, inspector, contract) for contract in expected.values()]
    finally:
        database.dispose()
    if keyless := [table.name for table in tables if not table.key]:
        raise ShopError(
            f"no column of {', '.join(keyless)} tells one row from another, alone or with a second one: declare a "
            "primary key, or offer a view whose key is unique and never null. Nothing was written"
        )
    for table in tables:
        if tuple(table.key) != (usual := expected[table.name].key):
            raise ShopError(
                f"{table.name} is told apart by {', '.join(table.key)}, but marts and features count its rows by "
                f"{', '.join(usual)}: rows that share it would be one. Offer a view that has another whole number "
                "there in each row. Nothing was written"
            )
    texts = {folder / "contracts" / f"shop.{table.name}{SUFFIX}": _contract(table) for table in tables}
    texts[folder / FILE] = _page(tables)
    if there := [str(path) for path in texts if path.exists()]:
        raise ShopError(f"{', '.join(there)}: there already, and a draft writes over nothing: name another folder")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, text)
    return {
        "written": [str(path) for path in texts],
        "to confirm": sum(text.count("CONFIRM") for text in texts.values()),
        "next": f"read each CONFIRM in {folder}, then set PLUMBLINE_SHOP_FOLDER={folder} and run `plumb contract diff`",
    }


def _lacking(inspector: sa.Inspector, expected: Contract) -> Iterator[str]:
    """What a table lacks of the columns that every shop's have, in words; a shop may do without `recorded_at`."""
    wanted = {name: column.kind for name, column in expected.columns.items() if name != RECORDED}
    if not inspector.has_table(expected.physical):
        yield f"there is no {expected.physical} ({', '.join(f'{name} {kind}' for name, kind in wanted.items())})"
        return
    declared = _declared(inspector, expected)
    for name, kind in wanted.items():
        if name not in declared:
            yield f"{expected.physical} lacks {name} ({kind})"
        elif kind_of(declared[name]) != kind:
            yield f"{expected.physical}.{name} is declared {declared[name]}: expected {kind}"


def _declared(inspector: sa.Inspector, expected: Contract) -> dict[str, TypeEngine[Any]]:
    columns, dialect = inspector.get_columns(expected.physical), inspector.dialect.name
    return {c["name"]: declared_type(expected, c["name"], c["type"], dialect) for c in columns}


def _table(connection: sa.Connection, inspector: sa.Inspector, expected: Contract) -> Table:
    import sqlalchemy as sa

    name, types = expected.physical, _declared(inspector, expected)
    nullable = {column["name"]: bool(column["nullable"]) for column in inspector.get_columns(name)}
    columns = [Seen(c, kind_of(kind), str(kind), nullable[c]) for c, kind in types.items()]
    fit = [c for c in columns if c.kind and NAME.match(c.name) and not reserved(c.name)]
    asked: list[Any] = [sa.func.count()]
    for c in fit:
        value: sa.ColumnElement[Any] = sa.column(c.name)
        ordered = value if c.kind not in ("boolean", "string") else sa.null()
        asked += [sa.func.count(value), sa.func.count(value.distinct()), sa.func.min(ordered), sa.func.max(ordered)]
    rows, *found = connection.execute(sa.select(*asked).select_from(sa.table(name))).one()
    for position, c in enumerate(fit):
        given, c.different, c.least, c.greatest = found[4 * position : 4 * position + 4]
        c.nulls = rows - given
    key = list(inspector.get_pk_constraint(name)["constrained_columns"] or [])
    usual = tuple(key) == expected.key
    return Table(
        name,
        rows,
        fit,
        key if usual else _guessed_key(connection, name, rows, fit, expected.key),
        usual,
        [c for c in columns if c not in fit],
    )


def _guessed_key(
    connection: sa.Connection, name: str, rows: int, columns: list[Seen], usual: tuple[str, ...]
) -> list[str]:
    """The first column, or pair of columns, that tells all rows apart and is never null; the `usual` one is first."""
    import sqlalchemy as sa

    whole = [c for c in columns if c.kind in ("integer", "string") and not c.nulls]
    whole.sort(key=lambda c: (c.name not in usual, not c.name.endswith(("id", "key", "number", "code"))))
    for c in whole:
        if c.different == rows:
            return [c.name]
    for pair in combinations([c.name for c in whole], 2):
        different = sa.select(*map(sa.column, pair)).select_from(sa.table(name)).distinct().subquery()
        if connection.scalar(sa.select(sa.func.count()).select_from(different)) == rows:
            return list(pair)
    return []


def _contract(table: Table) -> str:
    """A contract's text. What the database does not say has a comment behind it."""
    lines = [
        f"# Drafted from {table.rows:,} rows of {table.name} by `plumb contract draft`. Correct each guess: CONFIRM.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: shop.{table.name}",
        f"name: The shop's {table.name}",
        "version: 1.0.0",
        "status: draft",
        "domain: retail",
        "dataProduct: churn",
        "description:",
        f"  purpose: Every row of {table.name}.  # CONFIRM: say what a row is",
        f"  usage: Landed into raw.{table.name} by `plumb ingest`.",
        "  limitations: A correction or a deletion is a version of its own; it counts from when it was knowable.",
        "schema:",
        f"  - name: shop.{table.name}",
        f"    physicalName: {table.name}",
        "    physicalType: table",
        "    logicalType: object",
        f"    dataGranularityDescription: One row for each {', '.join(table.key)}.",
        "    properties:",
    ]
    for column in table.columns:
        lines += _column(table, column)
    lines += ["team:", "  name: shop", "  members:", "    - {username: shop-data-owner, role: owner}  # CONFIRM: who?"]
    lines += ["support:", '  - {channel: "#shop-data", tool: slack, scope: notifications}  # CONFIRM: where?']
    lines += ["customProperties:", "  - {property: timeZone, value: UTC}  # CONFIRM: the zone of the shop's calendar"]
    if table.recorded != RECORDED:
        told = "keys and values are compared" if table.recorded == "none" else "it says when a row was recorded"
        lines.append(f"  - {{property: recordedAt, value: {table.recorded}}}  # CONFIRM: {told}")
    if table.left_out:
        why = "; ".join(f"{c.name} is {c.declared}" for c in table.left_out)
        names = json.dumps([c.name for c in table.left_out])
        lines.append(f"  - {{property: leftOut, value: {names}}}  # CONFIRM: {why}. A view can cast or rename")
    lines += [
        "slaProperties:",
        "  - property: completeness",
        "    value: 99.9",
        "    unit: percent of records",
        f'    element: "{", ".join(table.key)}"',
        "    driver: operational",
        "    description: Of what the shop records, rows with the key.",
        "  - property: schemaNotice",
        "    value: 7",
        "    unit: d",
        f"    element: shop.{table.name}",
        "    driver: operational",
        "    description: A breaking change is announced 7 days ahead; old and new are both written meanwhile.",
    ]
    return "\n".join(lines) + "\n"


def _column(table: Table, column: Seen) -> Iterator[str]:
    kind = str(column.kind)
    yield f"      - name: {column.name}"
    yield f"        logicalType: {kind}"
    yield f"        physicalType: {PHYSICAL[kind]}"
    if column.name in table.key:
        guess = "" if table.key_declared else "  # CONFIRM: no two rows share it, which no constraint says"
        yield f"        primaryKey: true{guess}"
        yield f"        primaryKeyPosition: {table.key.index(column.name) + 1}"
        if len(table.key) == 1:
            yield "        unique: true"
    required = column.name in (*table.key, table.recorded) or (not column.nulls and table.rows > 0)
    if required:
        yield "        required: true" + ("  # CONFIRM: no row lacks it now" if column.nullable else "")
    if column.name not in table.key and (limits := _limits(column)):
        span = f"{_said(column.least)} to {_said(column.greatest)} seen"
        yield f"        logicalTypeOptions: {{{limits}}}  # CONFIRM: {span}"
    yield f"        description: {column.name}.  # CONFIRM: say what it is, with its unit"
    if kind == "date" and column.greatest is not None and str(column.greatest) <= clock.wall().date().isoformat():
        yield "        quality:"
        yield "          - name: notInTheFuture"
        yield "            type: custom"
        yield "            engine: plumbline"
        yield "            implementation: {latest: asOf}  # CONFIRM: no row is dated behind the day that a run covers"
        yield "            dimension: accuracy"
        yield "            description: No row is dated behind the day that a run covers."


def _limits(column: Seen) -> str:
    """Limits around what was seen: from 0 where nothing is below, up to the power of ten behind ten times the most."""
    if column.least is None:
        return ""
    if column.kind == "date":
        return f'minimum: "{_said(column.least)}"'
    if column.kind != "integer" or column.name.endswith("id"):
        return ""
    parts = [f"minimum: {1 if column.least > 0 else 0}"] if column.least >= 0 else []
    most = 10 ** len(str(abs(int(column.greatest)) * 10))
    return ", ".join([*parts, *([f"maximum: {most}"] if most < 2**63 else [])])


def _said(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _page(tables: list[Table]) -> str:
    stamps = [str(c.least)[:10] for t in tables for c in t.columns if c.name == t.recorded]
    first = min((stamp for stamp in stamps if DAY.match(stamp)), default="2000-01-01")
    return "\n".join(
        [
            "# The page of the shop, drafted by `plumb contract draft`. Each CONFIRM is a guess: correct it.",
            "name: The shop  # CONFIRM: as messages name it",
            "about: Where its data comes from.  # CONFIRM: source and licence",
            "simulated: false  # CONFIRM",
            f"first_day: {first}  # CONFIRM: the first record seen; Airflow's days begin here",
            "horizon_days: 90  # CONFIRM: who does not order in so many days has churned",
            "why_horizon: Not looked at yet.  # CONFIRM: two to three times the mean gap between orders",
            "# Means of orders are learned from each release; `expected` states them instead.",
            "model:",
            "  seed: 1",
            "  min_child_weight: 30.0  # CONFIRM: about one in a hundred of the customers, 100 at most",
            "  monotone: {days_since_last_order: 1}  # CONFIRM: a longer silence makes nobody safer",
            "  why: Not looked at yet.  # CONFIRM",
            "",
        ]
    )
