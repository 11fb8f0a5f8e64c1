"""The first contracts of a shop, drafted from its database: what they say, what is a guess, what is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.database import draft
from ingestion.database.source import ShopError
from plumbline import shop
from plumbline.contracts import contract as contracts
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.settings import settings
from products.churn import CHURN


def database(path: Path, *statements: str) -> str:
    url = f"sqlite:///{path / 'own.sqlite'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()
    return url


ORDERS = "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT)"
CUSTOMERS = "CREATE TABLE customers (customer_id BIGINT PRIMARY KEY, signed_up_at TIMESTAMP NOT NULL, recorded_at DATE)"
RETURNS = "CREATE TABLE returns (order_id BIGINT, cents BIGINT, returned_at TIMESTAMP)"


def test_a_draft_can_be_served_and_says_what_the_database_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database(
        tmp_path,
        "CREATE TABLE orders (order_id BIGINT PRIMARY KEY, customer_id BIGINT, order_date DATE, units BIGINT, "
        'total_cents BIGINT NOT NULL, note TEXT, updated_at TIMESTAMP NOT NULL, "Gift note" TEXT)',
        "INSERT INTO orders VALUES (7, 1, '2021-03-04', 1, 0, NULL, '2021-03-04 10:00:00', NULL)",
        "INSERT INTO orders VALUES (8, 1, '2021-03-05', 2, 961, 'x', '2021-03-05 10:00:00', NULL)",
        "CREATE TABLE customers (id BIGINT PRIMARY KEY, customer_id BIGINT, signed_up_at DATETIME, since DATE)",
        "INSERT INTO customers VALUES (90, 1, '2021-03-04 09:00:00', '2021-03-04')",
        RETURNS,
        "CREATE TABLE words (word TEXT)",
    )
    folder = tmp_path / "my-shop"
    result = draft.draft(CHURN, url, folder)
    names = ["orders", "customers", "returns"]
    assert result["written"] == [
        *(str(folder / "contracts" / f"shop.{name}.odcs.yaml") for name in names),
        str(folder / "shop.yaml"),
    ]
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(folder))
    settings.cache_clear()
    orders, customers, returns = map(contracts.shop, names)
    assert (orders.key, orders.recorded, orders.left_out) == (("order_id",), "updated_at", ("Gift note",))
    assert {name: column.required for name, column in orders.columns.items()} == {
        **dict.fromkeys(("order_id", "customer_id", "order_date", "units", "total_cents"), True),
        "note": False,
        "updated_at": True,
    }
    assert (orders.columns["total_cents"].minimum, orders.columns["total_cents"].maximum) == (0, 10_000)
    assert orders.columns["order_date"].not_after_run
    assert (customers.key, customers.recorded) == (("customer_id",), "signed_up_at")
    assert (returns.key, returns.recorded) == (("order_id",), "returned_at"), "no row, so the key that returns have"
    assert (shop.page().first_day, shop.page().model.seed) == (date(2021, 3, 4), 1)
    text = orders.path.read_text()
    assert "primaryKey: true\n" in text, "declared, so no guess"
    assert "primaryKey: true  # CONFIRM" in customers.path.read_text(), "guessed from the rows"
    assert "maximum: 10000}  # CONFIRM: 0 to 961 seen" in text


def test_orders_that_share_their_number_are_refused_for_they_would_count_once(home: Path, tmp_path: Path) -> None:
    by_region = ORDERS.replace("(order_id BIGINT", "(region VARCHAR(8) NOT NULL, order_id BIGINT")
    url = database(
        tmp_path,
        by_region.replace("total_cents BIGINT)", "total_cents BIGINT, PRIMARY KEY (region, order_id))"),
        *[f"INSERT INTO orders VALUES ('{key}, 1, '2021-03-04', 1, 961)" for key in ("de', 7", "fr', 7", "fr', 8")],
        CUSTOMERS,
        RETURNS,
    )
    with pytest.raises(
        ShopError, match="orders is told apart by order_id, region, but .* count its rows by order_id: "
    ):
        draft.draft(CHURN, url, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_draft_writes_over_nothing(home: Path, tmp_path: Path) -> None:
    url = database(tmp_path, ORDERS, CUSTOMERS, RETURNS)
    draft.draft(CHURN, url, tmp_path / "mine")
    with pytest.raises(ShopError, match=r"mine/contracts/shop.orders.odcs.yaml.* there already"):
        draft.draft(CHURN, url, tmp_path / "mine")


def test_what_cannot_be_drafted_is_one_sentence_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    empty = database(tmp_path)
    (tmp_path / "own.sqlite").touch()
    with pytest.raises(ShopError) as lacking:
        draft.draft(CHURN, empty, folder)
    assert "there is no orders (order_id integer, customer_id integer, order_date date, " in str(lacking.value)
    assert "It shows no table and no view to this user. Offer views" in str(lacking.value)
    other = (
        "CREATE TABLE orders (order_id TEXT, customer_no BIGINT, order_date DATE, units BIGINT, total_cents NUMERIC)"
    )
    with pytest.raises(ShopError) as lacking:
        draft.draft(CHURN, database(tmp_path, other, CUSTOMERS), folder)
    for told in (
        "orders.order_id is declared TEXT: expected integer; orders lacks customer_id (integer); ",
        "orders.total_cents is declared NUMERIC: expected integer; there is no returns (order_id integer, returned_at",
        "It shows customers, orders. Offer views with these names and columns (docs/your-own.md). Nothing was written",
    ):
        assert told in str(lacking.value)
    (tmp_path / "own.sqlite").unlink()
    keyless = database(tmp_path, ORDERS, CUSTOMERS, RETURNS, *["INSERT INTO returns VALUES (1, 1, '2021-03-04')"] * 2)
    with pytest.raises(ShopError, match="no column of returns tells one row from another.* declare a primary key"):
        draft.draft(CHURN, keyless, folder)
    with pytest.raises(SettingsError, match="the URL: expected a SQLAlchemy URL"):
        draft.draft(CHURN, "my shop", folder)
    with pytest.raises(ServiceUnavailable, match="there is no shop database at") as error:
        draft.draft(CHURN, f"sqlite:///{tmp_path}/nowhere.sqlite", folder)
    with pytest.raises(ServiceUnavailable, match=r"the shop database postgresql\+psycopg://shop:\*\*\*@127") as error:
        draft.draft(CHURN, "postgresql+psycopg://shop:hunter2@127.0.0.1:1/shop", folder)
    assert "hunter2" not in str(error.value)
    assert not folder.exists()
