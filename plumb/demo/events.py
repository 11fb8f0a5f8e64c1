"""The order stream's demo: events flow, a customer's score changes seconds after an order, the job is killed in
mid-work, and everything is equal all the same.

The shop is one in twenty of CDNOW's customers. Its real orders up to yesterday are the stream's past, and the model is
trained on them. Customers and amounts of today's orders are real ones of before; that they order today is made up, and
so is the rate.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from feature_repo import live_rows
from feature_repo.churn.jobs import activity
from ingestion.events import backfill, produce, topics
from plumb.demo import demo, stream_proof
from plumbline import clock, shop
from plumbline.display import figures, terminal
from plumbline.errors import PlumblineError
from plumbline.orchestration import airflow
from plumbline.progress import say
from plumbline.servers import kafka, services
from plumbline.settings import settings
from plumbline.state import acceptances
from products.churn import CHURN
from serving import client, launch

VIEW = "customer_activity"
TODAY = date(1998, 6, 30)
"""CDNOW's last day: the demo's today."""

ONE_IN = 20
"""Of how many customers one is in the demo's shop."""

NEW = 10_000_000
"""What is added to an order's number to make today's."""

RATE, SECONDS = 40, 15
"""Orders a second of the demo's live part, and how long it lasts. Made up."""

EVERY, AROUND, ASKED_EVERY = 3.0, 2.0, 0.05
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
    with _home(), ExitStack() as stack:
        flow = stack.enter_context(airflow.Airflow())  # its start goes on beside what follows
        topics.ensure(kafka.broker())
        orders = _past()
        produced, sent = {f"order-{order['order_id']}" for order in orders}, produce.Sent()
        live = [{**order, "order_id": NEW + order["order_id"]} for order in orders[-RATE * (SECONDS + 5) :]]
        extra = live[RATE * SECONDS :]
        del live[RATE * SECONDS :]
        job = _model(flow, stack)
        say("orders as they are placed")
        _flow(job, live, sent, produced)
        _until(lambda: _landed(job) >= len(produced) - len(orders), READY_WITHIN, job)
        print(_story(_quiet(orders, live), produced, sent))
        say("kill -9 of the job, while events go on")
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


def _past() -> list[dict[str, Any]]:
    """The shop's orders up to yesterday, landed as the stream's past; in their order."""
    yesterday = TODAY - timedelta(days=1)
    demo.load_packaged(until=yesterday, one_in=ONE_IN)
    counts = backfill.backfill(activity.rows, activity.TABLE, shop.page().first_day, yesterday)
    say(f"the stream's past: {counts['events']:,} orders, {counts['rows']:,} rows of {activity.TABLE}")
    return produce.orders(shop.page().first_day, yesterday)


def _model(flow: airflow.Airflow, stack: ExitStack) -> _Job:
    """A release up to yesterday, a model trained on it, the predictor that serves it; the job is started meanwhile."""
    yesterday = TODAY - timedelta(days=1)
    why = f"the demo's shop is one in {ONE_IN} of the customers of {shop.page().name}"
    acceptances.accept(CHURN, "daily_rows", yesterday, why, by="plumb demo-events")
    live_rows.repair(CHURN, VIEW)  # the past is online, as the job itself would bring it
    say("a release, and a model that reads the activity, through Airflow")
    with demo.following_ledger():
        try:
            for _ in flow.run([(CHURN.daily, yesterday.isoformat())]):  # it runs as it is read
                pass
            say("starting the job, beside the training")
            job = stack.enter_context(_job())
            for _ in flow.run([(CHURN.training, None)]):
                pass
        except airflow.AirflowError:
            demo.raise_what_failed()
            raise
    services.stop("spark")  # the job has a Spark of its own
    launch.ensure(CHURN)
    _until(job.metrics, READY_WITHIN, job)
    return job


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


def _quiet(orders: list[dict[str, Any]], live: list[dict[str, Any]]) -> int:
    """A customer of the release who has not ordered for the longest, today neither: whose score has a way to go."""
    newest = {order["customer_id"]: order["order_id"] for order in orders}
    return int(min(newest.keys() - {order["customer_id"] for order in live}, key=newest.__getitem__))


def _story(customer: int, produced: set[str], sent: produce.Sent) -> str:
    """One order, and how long it takes until its customer's score is another one; the picture of it."""
    order = {"order_id": 9_000_001, "customer_id": customer, "units": 1, "total_cents": 1_499}
    before, answered = _activity(customer), _answer(customer)
    scores = list[tuple[float, float]]()
    asked = clock.monotonic()
    while clock.monotonic() < asked + AROUND:
        scores.append((clock.monotonic(), _score(customer)))
        time.sleep(ASKED_EVERY)
    produce.produce(kafka.broker(), iter([_now(order)]), 0, produce.Sent())
    placed = clock.monotonic()
    produced.add(f"order-{order['order_id']}")
    sent.events += 1
    moved: float | None = None
    while moved is None or clock.monotonic() < moved + AROUND:
        scores.append((clock.monotonic(), _score(customer)))
        time.sleep(ASKED_EVERY)
        if moved is None and scores[-1][1] != scores[0][1]:
            moved = scores[-1][0]
        if moved is None and clock.monotonic() - placed > READABLE_WITHIN:
            raise DemoError(f"customer {customer} ordered, and the score is the same after {READABLE_WITHIN:.0f} s")
    after, answer = _activity(customer), _answer(customer)
    title = f"Customer {customer} orders: {moved - placed:.1f} s later the score is another one"
    rows = terminal.table(title, "", "before the order", "after it", right=("before the order", "after it"))
    for name in after:
        rows.add_row(name, *(str(one.get(name, "–")) for one in (before, after)))
    ages = [one["view_age_seconds"].get(VIEW) for one in (answered, answer)]
    rows.add_row("age of the view's row, s", *("–" if age is None else f"{age:,.1f}" for age in ages))
    rows.add_row("churn_probability", *(f"{one['churn_probability']:.4f}" for one in (answered, answer)), style="bold")
    console = terminal.console(110)
    with console.capture() as captured:
        console.print(rows)
    picture = _draw([(at - placed, score) for at, score in scores], moved - placed, customer)
    return f"{captured.get()}  {len(scores)} answers of the predictor around it: {picture}"


def _draw(scores: list[tuple[float, float]], moved: float, customer: int) -> Path:
    """The answers about the customer, in seconds from the order."""
    picture = settings().home / "report" / "score.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
        axes.plot(*zip(*scores, strict=True), drawstyle="steps-post", color=figures.MODEL, lw=2)
        axes.axvline(0, color=figures.SECOND, ls="--", lw=1)
        for at, told, color in ((0.0, "the order", figures.SECOND), (moved, f"{moved:.1f} s later", figures.MODEL)):
            axes.annotate(told, (at, 0), (6, 8), textcoords="offset points", color=color)
        axes.set(xlabel="seconds from the order (made up)", ylabel="churn_probability", ylim=(0, 1))
        axes.set_title(f"Customer {customer}: what the predictor answers")
        figure.savefig(picture, metadata={"Date": None})
        plt.close(figure)
    return picture


def _answer(customer: int) -> dict[str, Any]:
    status, answer = client.ask(customer)
    if status != 200:
        raise DemoError(f"the predictor answers {status} about customer {customer}: {answer}")
    found: dict[str, Any] = answer["predictions"][0]
    return found


def _score(customer: int) -> float:
    return float(_answer(customer)["churn_probability"])


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
