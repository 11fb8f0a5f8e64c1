"""The shop's database: how it is reached, and its tables as their contracts have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column, Contract
from plumbline.errors import PlumblineError, ServiceUnavailable, SettingsError
from plumbline.product import Product
from plumbline.settings import settings

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection, Engine, MetaData
    from sqlalchemy.types import TypeEngine


TIMEOUT = 5
"""Seconds that a Postgres has to take a connection, unless its URL says otherwise; by itself it has minutes."""


class ShopError(PlumblineError):
    """The shop's data or its database is not as expected."""


def as_stored(kind: TypeEngine[Any], instant: datetime) -> datetime:
    """An instant (UTC) as a column of that type holds it: with its zone, or UTC without one."""
    return instant if getattr(kind, "timezone", False) else instant.replace(tzinfo=None)


def schema(product: Product) -> MetaData:
    """The shop's tables as their contracts have them. Timestamps are UTC without a zone."""
    import sqlalchemy as sa

    tables = sa.MetaData()
    for name in product.sources:
        contract = contracts.shop(name)
        sa.Table(name, tables, *(_column(contract, column) for column in contract.columns.values()))
    return tables


def _column(contract: Contract, column: Column) -> sa.Column[Any]:
    import sqlalchemy as sa

    return sa.Column(
        column.name,
        column_type(column),
        primary_key=column.name in contract.key,
        autoincrement=False,
        nullable=not column.required,
        index=column.name == contract.recorded or None,
    )


def column_type(column: Column) -> TypeEngine[Any]:
    """The type of a contract's column in a shop database."""
    import sqlalchemy as sa

    kinds: dict[str, TypeEngine[Any]] = {
        "integer": sa.BigInteger(),
        "number": sa.Float(),
        "date": sa.Date(),
        "timestamp": sa.DateTime(),
        "string": sa.String(),
        "boolean": sa.Boolean(),
    }
    return kinds[column.kind]


def engine(named: str | None = None) -> Engine:
    """An engine for the shop's URL, or another. The URL may hold a password: it appears in no message."""
    import sqlalchemy as sa

    given = "the URL" if named else "PLUMBLINE_SHOP_URL"
    try:
        url = sa.make_url(named or settings().shop)
    except sa.exc.ArgumentError:
        raise SettingsError(f"{given}: expected a SQLAlchemy URL, as in postgresql+psycopg://user@host/shop") from None
    if url.drivername.startswith("sqlite") and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(TIMEOUT)})
    try:
        return sa.create_engine(url)
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise SettingsError(
            f"{given}: there is no driver for {url.drivername} in the pipeline environment ({error})"
        ) from None


@contextmanager
def connected(database: Engine) -> Iterator[Connection]:
    """A transaction on the shop. Raises ServiceUnavailable, without the password, when it cannot be reached."""
    import sqlalchemy as sa

    try:
        with database.begin() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        where = address(database.url.render_as_string(hide_password=False))
        raise ServiceUnavailable(f"the shop database {where}: {error.orig}") from None


def address(named: str | None = None) -> str:
    """The shop's URL for messages: without its query, where drivers take a password too, and without the password."""
    import sqlalchemy as sa

    return sa.make_url(named or settings().shop).set(query={}).render_as_string(hide_password=True)
