"""Days after the release in force, through Airflow for real, on the orders of every twentieth customer."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ingestion.churn import cdnow as shop
from plumb.demo import demo, replay
from plumb.demo.replay import ReplayError
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.orchestration import airflow
from plumbline.servers import online_store
from plumbline.settings import settings
from plumbline.state import releases
from products.churn import CHURN
from serving.client import DemoError
from tests.e2e.test_scheduler import some_orders

FIRST = date(1997, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_day_with_real_orders_then_one_without(
    with_spark: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")
    monkeypatch.setenv("PLUMBLINE_CODE_SHA", "the same in all tasks")
    settings.cache_clear()
    orders = some_orders(tmp_path, until=date(1997, 2, 2))
    monkeypatch.setattr(shop, "packaged", lambda: orders)
    by_day = [order.order_date for order in shop.read(orders)]
    loaded = shop.load(until=FIRST)
    assert loaded["last_order_date"] == FIRST.isoformat()
    demo.set_clock(clock.end_of(FIRST))
    list(airflow.run([("retail_features", FIRST.isoformat())]))
    assert releases.numbers("churn") == [1]

    done = replay.replay(2)
    assert [(item.day.isoformat(), item.orders, item.release) for item in done] == [
        ("1997-02-02", by_day.count(date(1997, 2, 2)), 2),
        ("1997-02-03", 0, 3),
    ]
    assert done[0].orders > 0
    customers = len({order.customer_id for order in shop.read(orders)})
    assert {item.feature_rows for item in done} == {customers}, "a snapshot each day, with orders or without"
    told = capsys.readouterr()
    assert "1997-02-02: CDNOW's orders of that day" in told.err
    assert "1997-02-03: a day without orders, CDNOW's last is of 1997-02-02" in told.err
    assert "none in the shop" in told.out

    assert clock.now() == clock.end_of(date(1997, 2, 3))
    release = releases.required("churn")
    assert release.as_of == date(1997, 2, 3)
    assert {gate.verdict for gate in release.gates.values()} == {"passed"}
    assert lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas().shape[0] == len(by_day)
    online = online_store.online(online_store.client(), CHURN)
    assert online == (3, clock.end_of(date(1997, 2, 3)))


def test_a_replay_says_what_it_cannot_go_on_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReplayError, match="PLUMBLINE_NOW is set in the environment"):
        replay.replay(1)
    monkeypatch.delenv("PLUMBLINE_NOW")
    with pytest.raises(ReplayError, match="no release to go on from: `plumb demo` first"):
        replay.replay(1)
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", "postgresql+psycopg://shop:hunter2@db/shop")
    settings.cache_clear()
    with pytest.raises(DemoError, match="PLUMBLINE_SHOP_URL is set") as error:
        replay.replay(1)
    assert "hunter2" not in str(error.value)
