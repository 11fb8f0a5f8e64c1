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


def database(path: Path, *statements: str) -> str:
    url = f"sqlite:///{path / 'own.sqlite'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()
    return url


def test_a_draft_can_be_served_and_says_what_the_database_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database(
        tmp_path,
        "CREATE TABLE orders (order_no VARCHAR(8) PRIMARY KEY, cents BIGINT NOT NULL, note TEXT, "
        'updated_at TIMESTAMP NOT NULL, "Gift note" TEXT)',
        "INSERT INTO orders VALUES ('007', 0, NULL, '2021-03-04 10:00:00', NULL)",
        "INSERT INTO orders VALUES ('7', 961, 'x', '2021-03-05 10:00:00', NULL)",
        "CREATE TABLE lines (order_no VARCHAR(8), line BIGINT, bought_on DATE)",
        "INSERT INTO lines VALUES ('007', 1, '2021-03-04'), ('007', 2, '2021-03-04'), ('7', 1, '2021-03-05')",
        "CREATE TABLE words (word TEXT)",
        "INSERT INTO words VALUES ('a'), ('a')",
    )
    folder = tmp_path / "my-shop"
    result = draft.draft(url, folder)
    assert result["without a key"] == ["words"]
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(folder))
    settings.cache_clear()
    orders, lines = contracts.shop("orders"), contracts.shop("lines")
    assert (orders.key, orders.recorded, orders.left_out) == (("order_no",), "updated_at", ("Gift note",))
    assert {name: column.required for name, column in orders.columns.items()} == {
        "order_no": True,
        "cents": True,
        "note": False,
        "updated_at": True,
    }
    assert (orders.columns["cents"].minimum, orders.columns["cents"].maximum) == (0, 10_000)
    assert (lines.key, lines.recorded) == (("order_no", "line"), "bought_on")
    assert lines.columns["bought_on"].not_after_run
    assert (shop.page().first_day, shop.page().model.seed) == (date(2021, 3, 4), 1)
    text = orders.path.read_text()
    assert "primaryKey: true\n" in text, "declared, so no guess"
    assert "primaryKey: true  # CONFIRM" in lines.path.read_text(), "guessed from the rows"
    assert "maximum: 10000}  # CONFIRM: 0 to 961 seen" in text


def test_a_draft_writes_over_nothing(home: Path, tmp_path: Path) -> None:
    url = database(tmp_path, "CREATE TABLE orders (order_id BIGINT PRIMARY KEY)")
    draft.draft(url, tmp_path / "mine")
    with pytest.raises(ShopError, match=r"mine/contracts/shop.orders.odcs.yaml.* there already"):
        draft.draft(url, tmp_path / "mine")


def test_what_cannot_be_drafted_is_one_sentence_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    empty = database(tmp_path)
    (tmp_path / "own.sqlite").touch()
    with pytest.raises(ShopError, match="shows no table and no view to this user: nothing was written"):
        draft.draft(empty, folder)
    keyless = database(tmp_path, "CREATE TABLE words (word TEXT)", "INSERT INTO words VALUES ('a'), ('a')")
    with pytest.raises(ShopError, match="no column of words tells one row from another.* declare a primary key"):
        draft.draft(keyless, folder)
    with pytest.raises(SettingsError, match="the URL: expected a SQLAlchemy URL"):
        draft.draft("my shop", folder)
    with pytest.raises(ServiceUnavailable, match="there is no shop database at") as error:
        draft.draft(f"sqlite:///{tmp_path}/nowhere.sqlite", folder)
    with pytest.raises(ServiceUnavailable, match=r"the shop database postgresql\+psycopg://shop:\*\*\*@127") as error:
        draft.draft("postgresql+psycopg://shop:hunter2@127.0.0.1:1/shop", folder)
    assert "hunter2" not in str(error.value)
    assert not folder.exists()
