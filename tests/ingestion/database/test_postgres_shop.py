"""A shop in Postgres: the same rows as from SQLite, its own types, and what is said when it is not as expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from ingestion.churn import cdnow as shop
from ingestion.database import dlt_runs, landing, source
from plumbline.errors import GateFailed, ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state.acceptances import accept
from products.churn import CHURN
from tests.ingestion.conftest import PASSWORD, use_shop

DAY = date(1997, 1, 10)
KEYS = {"orders": "order_id", "customers": "customer_id", "returns": "order_id"}


def land() -> dict[str, pd.DataFrame]:
    """The raw tables without what differs from load to load, and with dlt's load id left out."""
    stage.perform(CHURN, "ingest", DAY, landing.land)
    return {
        table: lake.open_table(f"raw.{table}").to_pandas().sort_values(key, ignore_index=True)
        .drop(columns=["_dlt_load_id", "_dlt_id", "loaded_at"], errors="ignore")
        for table, key in KEYS.items()
    }  # fmt: skip


def execute(*statements: str) -> None:
    with source.connected(source.engine()) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_postgres_lands_the_same_rows_as_sqlite(
    postgres_shop: sa.URL, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLUMBLINE_SHOP_URL")
    for lake_of, url in (("sqlite", None), ("postgres", postgres_shop)):
        monkeypatch.setenv("PLUMBLINE_HOME", str(home / lake_of))
        settings.cache_clear()
        if url is not None:
            use_shop(url, monkeypatch)
        shop.load(until=DAY)
    from_postgres = land()
    monkeypatch.delenv("PLUMBLINE_SHOP_URL")
    monkeypatch.setenv("PLUMBLINE_HOME", str(home / "sqlite"))
    settings.cache_clear()
    from_sqlite = land()
    for table in KEYS:
        assert len(from_sqlite[table]) > (10 if table == "returns" else 1000)
        pd.testing.assert_frame_equal(from_postgres[table], from_sqlite[table])


def test_columns_with_a_zone_and_narrow_integers_land_alike(postgres_shop: sa.URL) -> None:
    """The session's zone is New York, five hours behind UTC: nothing may be read by it."""
    execute(
        "CREATE TABLE customers (customer_id integer PRIMARY KEY, signed_up_at timestamptz, recorded_at timestamptz)",
        "CREATE TABLE orders (order_id integer PRIMARY KEY, customer_id integer, order_date date, units smallint, "
        "total_cents integer, recorded_at timestamptz)",
        "CREATE TABLE returns (order_id integer PRIMARY KEY, returned_at timestamptz, cents integer, "
        "recorded_at timestamptz)",
        "INSERT INTO customers VALUES (1, '1997-01-01 12:00+00', '1997-01-01 02:30+00')",
        # 1: late on the day by UTC, 2: the next day by UTC, though the same day in New York, 3: seen from Tokyo
        "INSERT INTO orders VALUES (1, 1, '1997-01-10', 1, 500, '1997-01-10 23:59:59.999999+00'), "
        "(2, 1, '1997-01-10', 1, 500, '1997-01-11 00:00+00'), (3, 1, '1997-01-10', 1, 500, '1997-01-10 17:00+09')",
    )
    accept(CHURN, "daily_rows", DAY, "nine days without an order", "a test")
    found = land()
    assert found["orders"]["order_id"].tolist() == [1, 3]
    assert found["orders"]["recorded_at"].tolist() == [
        datetime(1997, 1, 10, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1997, 1, 10, 8, tzinfo=UTC),
    ]
    assert set(found["orders"]["batch_id"]) == {"1997-01-01..1997-01-10"}, "the first day is UTC's, not New York's"
    assert {str(found["orders"][name].dtype) for name in ("order_id", "units", "total_cents")} == {"int64"}
    (settings().home / "runs" / "churn" / f"{DAY}.json").unlink()
    assert land()["orders"]["order_id"].tolist() == [1, 3], "what has landed is known by its key"


def test_views_do_as_well_as_tables(postgres_shop: sa.URL) -> None:
    shop.load(until=DAY)
    tables = land()
    for table in KEYS:
        execute(f"ALTER TABLE {table} RENAME TO {table}_held", f"CREATE VIEW {table} AS SELECT * FROM {table}_held")
    (settings().home / "runs" / "churn" / f"{DAY}.json").unlink()
    assert len(land()["orders"]) == len(tables["orders"])


def test_a_missing_column_is_named(postgres_shop: sa.URL) -> None:
    shop.load(until=date(1997, 1, 2))
    execute("ALTER TABLE orders DROP COLUMN units")
    with pytest.raises(GateFailed, match=r"the shop's table orders lacks \['units'\]; it has \['order_id', "):
        land()


def wrong_password(url: sa.URL) -> sa.URL:
    return url.set(password=f"{PASSWORD}-wrong")


def password_in_the_query(url: sa.URL) -> sa.URL:
    return url.set(username=None, password=None, query={"user": "shop", "password": f"{PASSWORD}-wrong"})


def dead_server(url: sa.URL) -> sa.URL:
    return url.set(port=services.free_port())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (wrong_password, "password authentication failed"),
        (password_in_the_query, "password authentication failed"),
        (dead_server, "[Cc]onnection refused"),
    ],
)
def test_a_shop_that_lets_nobody_in_is_unavailable_and_its_password_stays_secret(
    postgres_shop: sa.URL, monkeypatch: pytest.MonkeyPatch, broken: Callable[[sa.URL], sa.URL], told: str
) -> None:
    use_shop(broken(postgres_shop), monkeypatch)
    begun = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=told) as error:
        land()
    assert time.monotonic() - begun < 30
    assert PASSWORD not in _whole(error.value)


def test_a_server_that_never_answers_is_given_up_on(postgres_shop: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind((services.HOST, 0))
        silent.listen()
        monkeypatch.setattr(source, "TIMEOUT", 2)
        use_shop(postgres_shop.set(port=silent.getsockname()[1]), monkeypatch)
        with pytest.raises(ServiceUnavailable, match="timeout"):
            land()


@pytest.mark.parametrize(("owner", "before"), [(landing.Landing, "resource"), (dlt_runs, "write")])
def test_a_shop_that_goes_away_while_it_is_read_is_unavailable(
    postgres: sa.URL, postgres_shop: sa.URL, monkeypatch: pytest.MonkeyPatch, owner: Any, before: str
) -> None:
    shop.load(until=DAY)
    step = getattr(owner, before)

    def cut(*arguments: Any) -> Any:
        with sa.create_engine(postgres, isolation_level="AUTOCOMMIT").connect() as server:
            name = postgres_shop.database
            server.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            server.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        return step(*arguments)

    monkeypatch.setattr(owner, before, cut)
    with pytest.raises(ServiceUnavailable, match="went away while it was read: ") as error:
        land()
    assert PASSWORD not in _whole(error.value)


def _whole(error: BaseException | None) -> str:
    """The message and every cause that a traceback would print."""
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(told)
