from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from ingestion.churn import cdnow as shop
from ingestion.database import source
from ingestion.database.source import ShopError
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.settings import settings

HEADER = "CDNOW master\n"


def test_the_packaged_data_set_is_the_one_that_was_described() -> None:
    orders = list(shop.read(shop.packaged()))
    assert len(orders) == 69_659
    assert len({order.order_id for order in orders}) == 69_659
    assert len({order.customer_id for order in orders}) == 23_570
    assert (min(o.order_date for o in orders), max(o.order_date for o in orders)) == (
        date(1997, 1, 1),
        date(1998, 6, 30),
    )
    assert sum(order.total_cents == 0 for order in orders) == 80
    assert max(order.total_cents for order in orders) == 128_601
    fields = Counter((o.customer_id, o.order_date, o.units, o.total_cents) for o in orders)
    assert sum(count - 1 for count in fields.values()) == 255, "told apart by their ordinal alone"


def test_loading_twice_changes_nothing(home: Path) -> None:
    first = shop.load(until=date(1997, 1, 10))
    assert first["orders_loaded"] == first["orders"] > 1000
    assert first["last_order_date"] == "1997-01-10"
    again = shop.load(until=date(1997, 1, 10))
    assert (again["orders_loaded"], again["customers_loaded"]) == (0, 0)
    more = shop.load(until=date(1997, 1, 11))
    assert more["orders"] == first["orders"] + more["orders_loaded"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 19970101 1", r"row 2: expected customer, yyyymmdd, units, dollars; found \['1', '19970101', '1'\]"),
        ("1 19971301 1 2.00", "row 2: .*month must be in 1..12"),
        ("x 19970101 1 2.00", "row 2: .*invalid literal"),
        ("1 19970101 1 2.005", "row 2: amount '2.005': expected dollars of 0 or more with two decimals"),
        ("1 19970101 1 -2.00", "row 2: amount '-2.00'"),
        ("1 19970101 1 2,00", "row 2"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_loaded(home: Path, tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "orders.txt"
    path.write_text(f"{HEADER} 1 19970101 1 11.77\n {line}\n")
    with pytest.raises(ShopError, match=told):
        shop.load(path)
    assert not (home / "shop.sqlite").exists()


def test_a_shop_that_cannot_be_opened_is_named_without_its_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = home / "not-a-folder"
    home.mkdir()
    blocked.write_text("")
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", f"sqlite:///{home}")
    settings.cache_clear()
    with pytest.raises(ServiceUnavailable, match="the shop database sqlite:///"):
        shop.load(until=date(1997, 1, 2))


@pytest.mark.parametrize(
    ("url", "told"),
    [("nonsense", "expected a SQLAlchemy URL"), ("postgresql://u:pw@db/shop", "no driver for postgresql")],
)
def test_a_url_that_cannot_be_used_is_a_setting_to_mend(
    home: Path, monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", url)
    settings.cache_clear()
    with pytest.raises(SettingsError, match=told) as error:
        source.engine()
    assert "pw" not in str(error.value)
