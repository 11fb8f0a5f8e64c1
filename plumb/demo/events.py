"""The order stream's demo: events flow, a customer's activity is readable seconds after an order, the job is killed in
mid-work, and everything is equal all the same.

Customers, units and amounts are CDNOW's of the last weeks; that they order now is made up, and so is the rate.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ingestion.events import produce, topics
from plumb.demo import demo, stream_proof
from plumbline import clock
from plumbline.display import terminal
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.servers import kafka, online_store, services
from plumbline.settings import settings
from products.churn import CHURN

VIEW = "customer_activity"
TODAY = date(1998, 6, 30)
"""CDNOW's last day: the demo's today."""

RATE, SECONDS = 40, 30
"""Orders a second of the demo's live part, and how long it lasts. Made up."""

EVERY = 3.0
READY_WITHIN, READABLE_WITHIN = 90.0, 60.0
FAULTS = produce.Faults(duplicates=0.02, late=0.02, out_of_order=0.02, malformed=0.005, wrong_typed=0.005)


class DemoError(PlumblineError):
    """The demo did not see what it promises."""


@dataclass
class _Job:
    """`plumb events run` in a process of its own, and where it tells its numbers."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""

    def metrics(self) -> dict[str, float]:
        """Its counters and gauges, summed over labels; buckets of the freshness as `fresh LE`."""
        if not self.address:
            said = re.search(r"http://\S+/metrics", self.log.read_text())
            self.address = said[0] if said else ""
        found: dict[str, float] = {}
        try:
            text = urllib.request.urlopen(self.address, timeout=2).read().decode() if self.address else ""  # noqa: S310
        except OSError:
            return found
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if line.startswith("events_freshness_seconds_bucket"):
                name = "fresh " + name.partition('le="')[2].partition('"')[0]
            elif line.startswith("#"):
                continue
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
        return found


def run() -> None:
    """Runs the demo in a home of its own below the present one; its servers are stopped at the end."""
    begun = clock.monotonic()
    with _home():
        orders = _shop()
        produced = set[str]()
        broker = kafka.broker()
        topics.ensure(broker)
        online_store.client()
        sent = produce.Sent()
        history = [order for order in orders if order["order_date"] > TODAY - timedelta(days=7)]
        produced |= _send((produce.event(order) for order in history), sent, 0)
        say(f"{len(history):,} orders of the last 7 days are in the topic; starting the job")
        with _job() as job:
            _until(lambda: _landed(job) >= len(history), READY_WITHIN, job)
            live = [order for order in orders if order["order_date"] <= TODAY - timedelta(days=7)][-RATE * SECONDS :]
            _flow(job, live, sent, produced)
            _until(lambda: _landed(job) >= len(produced), READY_WITHIN, job)
            print(_story(live[-1]["customer_id"], produced, sent))
            say("kill -9 of the job, while events go on")
            extra = [{**order, "order_id": order["order_id"] + 1_000_000} for order in live[: RATE * 5]]
            sender = threading.Thread(target=lambda: produced.update(_send(map(_now, extra), sent, RATE * 2)))
            sender.start()
            time.sleep(2)
            os.kill(job.process.pid, signal.SIGKILL)
            sender.join()
        say("running it again, once")
        done = subprocess.run([_plumb(), "events", "run", "--once"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"the job did not go on after its kill: {done.stderr.strip().splitlines()[-1]}")
        print("  " + done.stdout.strip())
        _prove(produced, sent)
        print(f"  Took {clock.monotonic() - begun:.0f} s")


@contextmanager
def _home() -> Iterator[None]:
    """A home below the present one, empty, with a clock that is put back to the demo's day and goes on."""
    import shutil

    home = settings().home / "demo-events"
    os.environ["PLUMBLINE_HOME"] = str(home)
    settings.cache_clear()
    services.stop_all()
    shutil.rmtree(home, ignore_errors=True)
    shift = (TODAY - clock.wall().date()).days
    os.environ |= {"PLUMBLINE_CLOCK_SHIFT_DAYS": str(shift), "PYTHONPATH": os.pathsep.join(sys.path)}
    os.environ.pop("PLUMBLINE_NOW", None)
    settings.cache_clear()
    try:
        yield
    finally:
        stopped = services.stop_all()
        say(f"stopped {', '.join(stopped)}")


def _shop() -> list[dict[str, Any]]:
    """CDNOW's orders of the last weeks, in their order."""
    demo.load_packaged(until=TODAY)
    return produce.orders(TODAY - timedelta(days=45), TODAY)


def _now(order: dict[str, Any]) -> produce.Message:
    return produce.event(order, clock.now())


def _send(messages: Iterator[produce.Message], sent: produce.Sent, rate: float) -> set[str]:
    ids = set[str]()

    def noted() -> Iterator[produce.Message]:
        for key, value in messages:
            ids.add(json.loads(value)["event_id"])
            yield key, value

    produce.produce(kafka.broker(), produce.messages(noted(), FAULTS, sent), rate, sent)
    return ids


@contextmanager
def _job() -> Iterator[_Job]:
    log = settings().home / "logs" / "events.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen([_plumb(), "events", "run"], stdout=out, stderr=out)
    try:
        yield _Job(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def _plumb() -> str:
    return str(Path(sys.executable).with_name("plumb"))


def _until(ask: Callable[[], object], seconds: float, job: _Job) -> None:
    deadline = clock.monotonic() + seconds
    while not ask():
        if job.process.poll() is not None or clock.monotonic() > deadline:
            tail = " ".join(job.log.read_text().splitlines()[-3:])
            raise DemoError(f"the job landed nothing within {seconds:.0f} s; the end of {job.log}: {tail}")
        time.sleep(0.2)


def _activity(customer: int) -> dict[str, Any]:
    """What Redis has of a customer's activity."""
    from feature_repo.online_rows import OnlineRows

    _, stamp, values = next(OnlineRows(CHURN, VIEW).read([customer]))
    return {**values, "as of": stamp}


def _flow(job: _Job, live: list[dict[str, Any]], sent: produce.Sent, produced: set[str]) -> None:
    """Sends orders as they are placed, and shows every few seconds what the job tells."""
    sender = threading.Thread(target=lambda: produced.update(_send(map(_now, live), sent, RATE)))
    sender.start()
    print("  seconds   landed   events/s   lag   fresh within 5 s   duplicates   dead letters")
    base, begun = job.metrics(), clock.monotonic()
    last = base
    while sender.is_alive():
        time.sleep(EVERY)
        found = job.metrics()
        landed, fresh = (found.get(n, 0) - base.get(n, 0) for n in ("events_landed_total", "fresh 5.0"))
        rate = (found.get("events_landed_total", 0) - last.get("events_landed_total", 0)) / EVERY
        more = [f"{found.get(f'events_{name}_total', 0):>12,.0f}" for name in ("duplicates", "dead_letters")]
        share = f"{fresh / landed:>17.1%}" if landed else " " * 17
        lag = found.get("kafka_consumergroup_lag", 0)
        print(
            f"  {clock.monotonic() - begun:7.0f} {landed:8,.0f} {rate:10,.0f} {lag:5,.0f} {share} {' '.join(more)}",
            flush=True,
        )
        last = found
    sender.join()


def _landed(job: _Job) -> float:
    return job.metrics().get("events_landed_total", 0)


def _story(customer: int, produced: set[str], sent: produce.Sent) -> str:
    """One order, and how long it takes until its customer's activity says so."""
    order = {"order_id": 9_000_001, "customer_id": customer, "units": 1, "total_cents": 1_499}
    quiet = produce.Sent()
    held = _activity(customer)
    produce.produce(kafka.broker(), iter([_now(order)]), 0, quiet)
    placed = clock.monotonic()
    produced.add("order-9000001")
    sent.events += 1
    while (after := _activity(customer)).get("as of") == held.get("as of") or after["orders_7d"] <= (
        held.get("orders_7d") or 0
    ):
        if clock.monotonic() - placed > READABLE_WITHIN:
            raise DemoError(f"customer {customer} ordered, and Redis does not say so after {READABLE_WITHIN:.0f} s")
        time.sleep(0.05)
    seconds = clock.monotonic() - placed
    rows = terminal.table(
        f"Customer {customer} orders once more: readable in Redis after {seconds:.1f} s",
        "",
        "before",
        "after",
    )
    for name in after:
        rows.add_row(name, *(str(one.get(name, "–")) for one in (held, after)))
    console = terminal.console(110)
    with console.capture() as captured:
        console.print(rows)
    return captured.get()


def _prove(produced: set[str], sent: produce.Sent) -> None:
    found = stream_proof.differences(CHURN, VIEW, produced)
    if found:
        raise DemoError(f"{len(found)} differences after the kill, such as: {found[0]}")
    counts = {table: len(stream_proof.rows(table)) for table in (stream_proof.EVENTS, CHURN.streams[VIEW])}
    print(
        f"  After the kill: {len(produced):,} events were sent in {sent.messages:,} messages, and each landed once. "
        f"{counts[CHURN.streams[VIEW]]:,} rows of features are what plain Python makes of raw; Redis holds the newest "
        "of each customer. No difference."
    )
