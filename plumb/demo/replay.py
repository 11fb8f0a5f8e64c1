"""More days after the release in force: each through Airflow, with the orders that the shop's data has for it, if any.

CDNOW ends on 1998-06-30. A day behind the data's end is a day without orders, and a legitimate one: customers grow
quieter, and features, release and materialization go on. The clock in settings.env moves on with each day, so that a
replay that was interrupted goes on with the day it was at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date, timedelta

from plumb.demo.demo import (
    PRODUCT,
    following_ledger,
    load_packaged,
    raise_what_failed,
    require_packaged,
    set_clock,
)
from plumbline import clock, shop
from plumbline.display import terminal
from plumbline.errors import PlumblineError
from plumbline.orchestration import airflow
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings_file
from plumbline.state import acceptances, ledger, releases
from products.churn import CHURN


class ReplayError(PlumblineError):
    """There is nothing that could be replayed here."""


@dataclass(frozen=True)
class Day:
    """What a replayed day came to: orders and feature rows that its run landed and wrote, its release, seconds."""

    day: date
    orders: int
    feature_rows: int
    release: int
    seconds: float


def replay(days: int) -> list[Day]:
    """Runs the next days on top of the release in force, one after the other, and sums them up.

    Raises ReplayError for a shop that is not the demo's and a clock that cannot move; GateFailed or DemoError with
    what the failed stage said. The days before it stay released.
    """
    require_packaged()
    if "PLUMBLINE_NOW" in os.environ:
        raise ReplayError(f"PLUMBLINE_NOW is set in the environment: unset it, the replay moves {settings_file()}'s on")
    if releases.in_force(PRODUCT) is None:
        raise ReplayError("there is no release to go on from: `plumb demo` first")
    already_up, done = services.running(), []
    try:
        for _ in range(days):
            done.append(_run(releases.required(PRODUCT).as_of + timedelta(days=1)))
    finally:
        if done:
            _print(done)
        if stopped := services.stop_all(keep=already_up):
            say(f"stopped {', '.join(stopped)}")
    return done


def _run(day: date) -> Day:
    begun = clock.monotonic()
    last, name = load_packaged(until=day)["last_order_date"], shop.page().name
    real = last == day.isoformat()
    say(f"{day}: " + (f"{name}'s orders of that day" if real else f"a day without orders, {name}'s last is of {last}"))
    set_clock(clock.end_of(day))
    if not real:
        _accept_no_orders(day, str(last))
    with following_ledger():
        try:
            for _ in airflow.run([("retail_features", day.isoformat())]):
                pass
        except airflow.AirflowError:
            raise_what_failed()
            raise
    rows: dict[str, int] = {}
    for event in ledger.events(PRODUCT):
        if event["state"] == "COMPLETE" and event.get("as_of") == day.isoformat():
            rows |= event.get("rows", {})
    release = releases.required(PRODUCT).release_id
    seconds = clock.monotonic() - begun
    return Day(day, rows.get("raw.orders", 0), rows.get("features.customers", 0), release, seconds)


def _accept_no_orders(day: date, last: str) -> None:
    """A day that lacks orders because the data set is over is not a gap: said in the day's release."""
    for gate in ("daily_rows", "orders_volume"):
        if acceptances.accepted(PRODUCT, gate, day) is None:
            why = f"{shop.page().name} ends on {last}: the shop has no later records at all"
            acceptances.accept(CHURN, gate, day, why, by="plumb replay")


def _print(days: list[Day]) -> None:
    numbers = ("orders landed", "feature rows", "release", "s")
    title = f"Replayed: the clock stands at {clock.now():%Y-%m-%d %H:%M} UTC"
    table = terminal.table(title, "day", *numbers, right=numbers)
    for item in days:
        orders = f"{item.orders:,}" if item.orders else "none in the shop"
        table.add_row(str(item.day), orders, f"{item.feature_rows:,}", str(item.release), f"{item.seconds:.0f}")
    terminal.console(120).print(table)
