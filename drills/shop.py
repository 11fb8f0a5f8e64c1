"""Churn's drill ground: CDNOW's real orders up to a Monday, two releases and their models; the Tuesday is the day."""

from __future__ import annotations

from datetime import date
from typing import Any

from drills.ground import Ground
from ingestion.churn import cdnow
from ingestion.database import source
from plumb.demo import demo
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.state import releases
from products.churn import CHURN, ORDERS

BACKFILL, EVE, DAY = date(1997, 10, 5), date(1997, 10, 6), date(1997, 10, 7)
PRODUCT = CHURN.name


def day_comes(day: date) -> None:
    """The shop has the real orders up to that day, and the clock stands at its end."""
    cdnow.load(until=day)
    demo.set_clock(clock.end_of(day))


def sql(*statements: str) -> list[Any]:
    """Runs statements in the shop's database in one transaction; the rows of the last one."""
    import sqlalchemy as sa

    found: list[Any] = []
    with source.connected(source.engine()) as connection:
        for statement in statements:
            done = connection.execute(sa.text(statement))
            found = list(done.all()) if done.returns_rows else []
    return found


def customer() -> dict[str, int]:
    """A customer of the baseline whose features are all there: the one with most orders."""
    orders = lake.open_table(ORDERS, releases.required(PRODUCT).version(ORDERS)).to_pandas()
    return {"customer_id": int(orders.groupby("customer_id").size().idxmax())}


def orders_lost() -> int:
    """Orders in the shop that the release in force does not have, and orders that it has more than once."""
    held = lake.open_table(ORDERS, releases.required(PRODUCT).version(ORDERS)).to_pyarrow_table(columns=["order_id"])
    ids = held["order_id"].to_pylist()
    sent = {row[0] for row in sql("SELECT order_id FROM orders")}
    return len(sent - set(ids)) + len(ids) - len(set(ids))


GROUND = Ground(
    product=CHURN,
    eves=(BACKFILL, EVE),
    day=DAY,
    counted="orders",
    about=f"CDNOW's real orders up to {EVE}, two releases, the first one's model as champion, the second's challenger",
    comes=day_comes,
    one=customer,
    newest=customer,
    anew=True,
    said=lambda prediction: {"churn_probability": prediction["churn_probability"]},
    lost=orders_lost,
)
