"""Whether the shop still shows a person: what it shows lands at the next ingest, so there they must be gone first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion.database import source_checks
from ingestion.database.source import address, connected, engine
from plumbline.contracts import contract as contracts
from plumbline.pipeline.erased_rows import EraseError, Person
from plumbline.product import Product

if TYPE_CHECKING:
    import sqlalchemy as sa


def refuse(product: Product, person: Person) -> None:
    """Raises EraseError with the number of rows by table while the shop shows the person or what is theirs.

    A key of theirs that the shop gave to somebody else since is not theirs any more.
    """
    import sqlalchemy as sa

    database = engine()
    source_checks.refuse_absent(database.url)
    told, others = [], dict[str, set[int]]()
    try:
        with connected(database) as connection:
            there = {
                name: _table(connection, name) for name in product.sources if sa.inspect(connection).has_table(name)
            }
            for name, table in there.items():
                entity = _column(name, table, person.entity)
                if entity is None:
                    continue
                if count := _count(connection, entity == person.value):
                    told.append(f"{count:,} in {name}")
                for key, keys in person.also.items():
                    if (column := _column(name, table, key)) is not None:
                        rows = connection.execute(sa.select(column, entity).where(entity != person.value))
                        others.setdefault(key, set()).update(k for k, _ in rows if k in keys)
            for name, table in there.items():
                if _column(name, table, person.entity) is not None:
                    continue
                for key, keys in person.also.items():
                    column = _column(name, table, key)
                    wanted = sorted(keys - others.get(key, set()))
                    if column is not None and wanted and (count := _count(connection, column.in_(wanted))):
                        told.append(f"{count:,} in {name}")
    finally:
        database.dispose()
    if told:
        raise EraseError(
            f"the shop ({address()}) still shows the customer: {', '.join(told)} rows. The next ingest would bring "
            "them back, so nothing was changed. Delete them in the shop first, then run the same command again"
        )


def _table(connection: sa.Connection, name: str) -> sa.Table:
    import sqlalchemy as sa

    return sa.Table(name, sa.MetaData(), autoload_with=connection)


def _column(name: str, table: sa.Table, column: str) -> sa.ColumnElement[int] | None:
    """The column as the shop calls it today; None for a table without one."""
    contract = contracts.shop(name)
    names = contract.accepted(column) if column in contract.columns else (column,)
    return next((table.c[each] for each in names if each in table.c), None)


def _count(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    import sqlalchemy as sa

    return int(connection.scalar(sa.select(sa.func.count()).where(condition)) or 0)
