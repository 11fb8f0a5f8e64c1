"""The order stream under fire: its job is killed at six moments, then the broker, Redis and Spark under it.

A thousand events and their faults are behind each kill. What is held is the whole home after it went on: each event
landed once, the books add up, every row of features is what plain Python makes of raw, and Redis has the newest of each
customer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plumbline.lake import tables as lake
from plumbline.servers import kafka, online_store, services
from plumbline.settings import ROOT
from tests.conftest import inherited
from tests.ingestion.events.killed_stream import POINTS
from tests.ingestion.events.test_order_stream import BAD, Stream, order, streaming

pytestmark = [pytest.mark.kill, pytest.mark.timeout(3600)]

EVENTS = 1_000
REPORT = ROOT / ".plumbline" / "report" / "kill-events.md"
HEAD = (
    "# The order stream under fire",
    "",
    "Written by `make kill`. Behind each kill are 1,000 events and 56 faults (duplicates, late, malformed, another "
    "content); after it `plumb events run --once` went on. Held each time: distinct events landed = sent; the books "
    "cover every offset and add up; each row of features = what plain Python makes of raw; Redis = the newest row of "
    "each customer. A batch that had landed and was not finished is counted again by the run that finishes it.",
    "",
    "| killed | landed behind it | duplicates | dead letters | seconds to go on | differences |",
    "|---|---|---|---|---|---|",
)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    with streaming(tmp_path_factory.mktemp("killed") / "home") as found:
        yield found


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows = list(HEAD)
    yield rows
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(rows) + "\n")


SENT = iter(range(10_000, 1_000_000, 2_000))


def send(stream: Stream) -> None:
    first = next(SENT)
    events = [order(n, minutes_ago=(n * 7919) % 11_000) for n in range(first, first + EVENTS)]
    late = [order(n, minutes_ago=9_000) for n in range(first + EVENTS, first + EVENTS + 10)]
    changed = [order(first, minutes_ago=(first * 7919) % 11_000, total_cents=1)]
    bad = [message for reason, message in BAD.items() if reason != "changed"]
    stream.send([*events[5:], *events[:5], *events[::25], *late, *changed, *bad])


@pytest.mark.parametrize("point", list(POINTS))
def test_the_job_killed_at_a_moment_goes_on_and_everything_is_equal(
    stream: Stream, table: list[str], point: str
) -> None:
    send(stream)
    stream.killed(point)
    _goes_on(stream, table, f"the job: {point}")


def _server_died(name: str) -> Callable[[int], None]:
    def kill(_: int) -> None:
        found = services.find(name)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)

    return kill


def _spark_died(job: int) -> None:
    children = subprocess.run(["pgrep", "-P", str(job), "java"], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("what", "kill"),
    [
        ("the broker", _server_died(kafka.NAME)),
        ("Redis", _server_died("redis")),
        ("Spark", _spark_died),
    ],
)
def test_what_the_job_works_with_is_killed_in_mid_work(
    stream: Stream, table: list[str], what: str, kill: Callable[[int], None], tmp_path: Path
) -> None:
    landed = lake.version("raw.order_events")
    log = (tmp_path / "log").open("w")
    job = subprocess.Popen(
        [sys.executable, "-m", "plumb", "events", "run"], cwd=ROOT, env=inherited(), stdout=log, stderr=log
    )
    send(stream)
    deadline = time.monotonic() + 120
    while lake.version("raw.order_events") == landed and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(job.pid)
    if what == "Redis":
        online_store.client()  # an empty one comes up: what it lost is noticed at the next batch
        send(stream)
    else:
        kafka.broker()
        send(stream)
    time.sleep(10)
    job.send_signal(signal.SIGTERM)
    job.wait(120)
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said.partition("plumb:")[2], said[-3000:]
    _goes_on(stream, table, f"{what}, in mid-work")


def _goes_on(stream: Stream, table: list[str], what: str) -> None:
    before = time.monotonic()
    done = stream.run()
    differences = stream.differences()
    counts = (done["landed"], done["duplicates"], done["dead_letters"], round(time.monotonic() - before))
    table.append(f"| {what} | {' | '.join(f'{count:,}' for count in counts)} | {len(differences)} |")
    print(table[-1])
    assert differences == []
