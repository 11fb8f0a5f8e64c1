"""The demo: the whole path on real orders, through Airflow, to live answers; and what `plumb up` keeps running."""

from __future__ import annotations

import os
import pkgutil
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

from plumb.demo import up
from plumb.reports import report
from plumbline import clock, files, shop
from plumbline.errors import GateFailed
from plumbline.orchestration import airflow
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT, settings, settings_file
from plumbline.state import ledger, releases
from products.churn import CHURN
from serving.client import DemoError, ask

PRODUCT = CHURN.name
UNKNOWN = 999_999_999


def demo(until: date | None = None, keep: bool = False) -> None:
    """Loads the shop, runs a backfill, a daily run and a training run through Airflow, serves, asks, sums up.

    `until` takes only the orders up to that day. Servers are stopped at the end unless `keep`. A home whose release is
    of a later day than `until` is refused with DemoError, and so is a day before which the history is too short for a
    model; where a replay went on, a demo of all orders stays there.
    """
    require_packaged()
    held = releases.in_force(PRODUCT)
    if until is not None and held is not None and held.as_of > until:
        raise DemoError(
            f"release {held.release_id} covers {held.as_of} already, its clock is not turned back to {until}: give the "
            f"demo a home of its own, as in `PLUMBLINE_HOME={settings().home}/other plumb demo --until {until}`"
        )
    if until is not None:
        _refuse_too_short(until)
    begun, already_up = clock.monotonic(), services.running()
    seen = len(list(ledger.events(PRODUCT)))
    try:
        last = load_shop(until)
        orders = f"{'simulated' if shop.page().simulated else 'real'} orders of {shop.page().name} up to {last}"
        say(f"{orders}; the clock stands at {clock.now():%Y-%m-%d %H:%M} UTC (a replay)")
        seconds = _through_airflow(last)
        say("starting the predictor and asking it")
        seconds["serving: start"] = _timed(lambda: up.predictor(CHURN))
        answers = [_told(who, customer) for who, customer in _customers(last)]
        report.show(CHURN, answers, seconds, clock.monotonic() - begun, seen)
    finally:
        if not keep:
            stopped = services.stop_all(keep=already_up)
            say(f"stopped {', '.join(stopped)}" if stopped else "the servers that were running stay up: `make down`")


def _refuse_too_short(until: date) -> None:
    from feature_repo.churn.jobs.customers import snapshot_days
    from training.churn import split
    from training.errors import TrainingError

    first = shop.page().first_day
    try:
        split.choose(snapshot_days(None, first, max(first, until)), until)
    except TrainingError as error:
        raise DemoError(f"no model can be trained on the orders up to {until}: {error}. Nothing was run.") from None


def load_shop(until: date | None) -> date:
    """Loads the orders and sets the clock. The day it ends: the last order's, or the one that a replay has come to."""
    loaded = load_packaged(until)
    last = date.fromisoformat(str(loaded["last_order_date"]))
    if (held := releases.in_force(PRODUCT)) is not None:
        last = max(last, held.as_of)
    if "PLUMBLINE_NOW" not in os.environ:
        set_clock(clock.end_of(last))
    return last


def choose_shop(name: str) -> None:
    """Makes a home serve one of the repository's shops, now and in later commands. Raises DemoError."""
    folder, known = ROOT / "shops" / name, sorted(path.parent.name for path in ROOT.glob("shops/*/shop.yaml"))
    if name not in known:
        raise DemoError(f"there is no shop {name}: expected one of {', '.join(known)}")
    if folder != settings().shop_folder and releases.in_force(PRODUCT) is not None:
        raise DemoError(
            f"this home serves {shop.page().name}: give {name} a home of its own, as in `PLUMBLINE_HOME="
            f"{settings().home}/{name} plumb demo --shop {name}`"
        )
    keep_setting("PLUMBLINE_SHOP_FOLDER", str(folder))
    os.environ["PLUMBLINE_SHOP_FOLDER"] = str(folder)
    settings.cache_clear()


def require_packaged() -> None:
    """Raises DemoError for a shop without packaged data, or without the database that they go into."""
    page = shop.page()
    if not page.loader:
        raise DemoError(f"{page.name} brings no data for a demo: run the stages on your own (docs/your-own.md)")
    if page.database == "home" and settings().shop_url is not None:
        raise DemoError(
            f"PLUMBLINE_SHOP_URL is set: the demo loads {page.name} into a shop of its own, not into yours; unset it"
        )
    if page.database == "url" and settings().shop_url is None:
        raise DemoError(
            f"{page.name} is loaded into Postgres: name an empty database in PLUMBLINE_SHOP_URL, as in "
            "postgresql+psycopg://user:password@host/shop"
        )


def load_packaged(until: date | None = None, one_in: int = 1) -> dict[str, object]:
    """Loads the data that the shop's page names, by its own loader."""
    loaded: dict[str, object] = pkgutil.resolve_name(shop.page().loader)(until=until, one_in=one_in)
    return loaded


def set_clock(now: datetime) -> None:
    """Sets the replay's now for this home: later commands (`plumb serve`, `make up`) must agree on it."""
    keep_setting("PLUMBLINE_NOW", f"{now:%Y-%m-%dT%H:%M:%SZ}")
    settings.cache_clear()


def keep_setting(name: str, value: str) -> None:
    """Writes a setting that later commands in this home must share, in place of what it was."""
    file = settings_file()
    lines = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in lines if not line.startswith(f"{name}=")]
    files.write_whole(file, "\n".join([*kept, f"{name}={value}"]) + "\n", mode=0o600)


def _through_airflow(last: date) -> dict[str, float]:
    """Backfill to the day before the last, the last day as a daily run, then training. Seconds a task."""
    runs = [
        ("retail_features", (last - timedelta(days=1)).isoformat()),
        ("retail_features", last.isoformat()),
        ("ml_training_pipeline", None),
    ]
    seconds: dict[str, float] = {}
    labels = iter(["backfill", "daily", "training"])
    label = ""
    say("starting Airflow: a backfill, a daily run, a training run")
    with following_ledger():
        begun = clock.monotonic()
        try:
            for dag, task, _, took in airflow.run(runs):
                if task == {"retail_features": "ingest", "ml_training_pipeline": "lineage_check"}[dag]:
                    label = next(labels)
                seconds[f"{label}: {task}"] = took
        except airflow.AirflowError:
            raise_what_failed()
            raise
        seconds["airflow: its own share"] = clock.monotonic() - begun - sum(seconds.values())
    return seconds


def raise_what_failed(product: str = PRODUCT) -> None:
    """Raises what the newest failed stage said, which is worth more than Airflow's traceback of a task that ended."""
    *_, newest = [{"state": "none"}, *ledger.events(product)]
    if newest["state"] == "GATE_FAILED":
        raise GateFailed(f"{_what(newest)} stopped the line, nothing after it ran: {newest['error']}")
    if newest["state"] == "FAIL":
        raise DemoError(f"{_what(newest)} failed, nothing after it ran: {newest['error']}")


def _what(event: dict[str, Any]) -> str:
    return f"{event['stage']} {event.get('as_of', '')}".strip()


class following_ledger:
    """While it is open, every event that a stage writes into the ledger is told as a line of progress."""

    def __init__(self, product: str = PRODUCT) -> None:
        self._stop, self._product = threading.Event(), product
        self._seen = len(list(ledger.events(product)))
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._tell()

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            self._tell()

    def _tell(self) -> None:
        events = list(ledger.events(self._product))
        for event in events[self._seen :]:
            what = _what(event)
            if event["state"] == "START":
                say(f"{what} …")
            else:
                told = event.get("error") or event.get("message") or event["state"].lower()
                took = f" ({event['seconds']:.1f} s)" if "seconds" in event else ""
                say(f"{what}: {told.splitlines()[0][:150]}{took}")
        self._seen = len(events)


def _customers(last: date) -> Iterator[tuple[str, int]]:
    """Real customers whose story one can tell from their orders, and one that does not exist."""
    from plumbline.lake import tables as lake

    release = releases.required(PRODUCT)
    orders = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas()
    by = orders.groupby("customer_id").agg(n=("order_id", "count"), newest=("order_date", "max"))
    by["quiet"] = [(last - day).days for day in by["newest"]]
    once = by[by["n"] == 1].sort_values(["quiet"], ascending=False)
    loyal = by[by["quiet"] <= 14].sort_values("n", ascending=False)
    faded = by[(by["n"] >= 8) & (by["quiet"] > 150)].sort_values("quiet", ascending=False)
    fresh = by[(by["n"] == 2) & (by["quiet"] <= 14)].sort_index()
    for who, found in (
        ("bought once, long ago", once),
        ("loyal", loyal),
        ("was loyal, faded", faded),
        ("second order just now", fresh),
    ):
        if len(found):
            row = found.iloc[0]
            orders = f"{row['n']} orders, the last" if row["n"] > 1 else "one order,"
            yield f"{who}: {orders} {row['quiet']} days ago", int(found.index[0])
    yield "not a customer", UNKNOWN


def _told(who: str, customer: int) -> dict[str, Any]:
    status, answer = ask(customer)
    return {"who": who, "customer_id": customer, "status": status, "answer": answer}


def _timed(work: Callable[[], object]) -> float:
    begun = clock.monotonic()
    work()
    return clock.monotonic() - begun
