"""The order stream: events a second, and freshness at two rates; beside plain Spark, Quix Streams and one consumer.

`python -m bench.events WORK …` is a process of its own for one of them; `measure` runs all, on one private Kafka.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from bench import measured
from plumbline import clock
from plumbline.settings import ROOT, settings

DAY = date(2026, 10, 31)
EVENTS, CUSTOMERS, BATCH = 1_200_000, 20_000, 100_000
RATES = (12_500, 6_250)
"""Events a second for freshness: half of the rate that was the goal, and a quarter."""

SECONDS, WARM = 60, 45
"""How long events come at the stated rate, and how long they did before the first that counts: a JVM begins slow."""


def measure() -> dict[str, Any]:
    """All of it: what drains the topic, and how soon; then freshness."""
    from ingestion.events import topics
    from plumbline.servers import kafka

    peers = _peers()
    with measured.home("events", DAY) as home:
        os.environ.pop("PLUMBLINE_NOW")  # freshness is told by a clock that goes on
        settings.cache_clear()
        empty(home)
        topics.ensure(kafka.broker())
        sent = measured.worker("events", "send", EVENTS)
        paths = [measured.worker("events", *path) for path in (["consumer"], ["spark"], ["quix", peers], ["job"])]
        fresh = [measured.worker("events", "freshness", rate) for rate in RATES]
    return {
        "events": EVENTS,
        "customers": CUSTOMERS,
        "batch": BATCH,
        "warm": WARM,
        "sent_per_second": sent,
        "paths": paths,
        "freshness": fresh,
    }


def send(count: str) -> int:
    """Events of the last seven days into the topic; how many a second."""
    from ingestion.events import produce
    from plumbline.servers import kafka

    now = clock.now()
    sent = produce.Sent()
    produce.produce(
        kafka.broker(), (_event(n, now - timedelta(seconds=n * 7919 % 600_000)) for n in range(int(count))), 0, sent
    )
    return int(sent.events / sent.seconds) if sent.events else int(int(count) / sent.seconds)


def consumer() -> dict[str, Any]:
    """One Python consumer that reads and parses every message, and does nothing with it."""
    from confluent_kafka import Consumer

    from ingestion.events import topics
    from plumbline.servers import kafka

    options = {"group.id": "bench", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    reader = Consumer({**kafka.broker().client(), **options})
    reader.subscribe([topics.ORDERS])
    count, begun = 0, 0.0
    while count < EVENTS:
        for message in reader.consume(10_000, timeout=5):
            begun = begun or time.perf_counter()
            json.loads(message.value() or b"{}")
            count += 1
    seconds = time.perf_counter() - begun
    reader.close()
    return {"path": "one Python consumer, parsing alone", "per_second": round(EVENTS / seconds)}


def spark() -> dict[str, Any]:
    """Spark's own way to Delta: from_json and append, no check, no duplicates told, no features. Warm batches."""
    from ingestion.events import topics
    from plumbline.lake import spark as sessions
    from plumbline.servers import kafka

    os.environ["PLUMBLINE_SPARK_IN_PROCESS"] = "true"
    settings.cache_clear()
    session = sessions.session()
    fields = (
        "event_id STRING, event_time TIMESTAMP, order_id BIGINT, customer_id BIGINT, units BIGINT, total_cents BIGINT"
    )
    source = session.readStream.format("kafka").options(**kafka.broker().spark()).option("subscribe", topics.ORDERS)
    source = source.option("startingOffsets", "earliest").option("maxOffsetsPerTrigger", BATCH)
    rows = source.load().selectExpr(f"from_json(CAST(value AS STRING), '{fields}') AS event").select("event.*")
    home = settings().home
    sink = rows.writeStream.format("delta").option("checkpointLocation", str(home / "plain-checkpoint"))
    query = sink.trigger(availableNow=True).start(str(home / "plain"))
    query.awaitTermination()
    warm = [one for one in query.recentProgress if one["numInputRows"]][2:]
    seconds = sum(one["durationMs"]["triggerExecution"] for one in warm) / 1000
    return {
        "path": "plain Spark to Delta: no checks, no features",
        "per_second": round(sum(one["numInputRows"] for one in warm) / seconds),
    }


def _peers() -> Path:
    """The Python of the environment that Quix Streams is in, made if it is not there."""
    from toolchain import bootstrap  # reads where the home is, before a benchmark's takes its place

    bootstrap.install("peers", [bootstrap.LOCKS / "peers.txt"])
    return bootstrap.HOME / "venvs" / "peers" / "bin" / "python"


def quix(python: str) -> dict[str, Any]:
    """Quix Streams with the same counts and sums into the same Redis, in an environment of its own."""
    from ingestion.events import topics
    from plumbline.servers import kafka, online_store

    online_store.client()
    state = settings().home / "quix"
    given = {"client": kafka.broker().client(), "topic": topics.ORDERS, "redis": online_store.url(), "events": EVENTS}
    done = subprocess.run(
        [python, "-m", "bench.quix_peer"],
        input=json.dumps({**given, "state": str(state)}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    online_store.client().flushall()
    return {"path": "Quix Streams to Redis: no checks, no tables", "per_second": int(done.stdout.splitlines()[-1])}


def job() -> dict[str, Any]:
    """`plumb events run --once` over the whole topic; the rate of its batches behind the second."""
    batches, _ = drain(EVENTS)
    seconds = (batches[-1][0] - batches[2][0]).total_seconds()
    return {"path": "plumb events run", "per_second": round(sum(count for _, count in batches[3:]) / seconds)}


def drain(events: int) -> tuple[list[tuple[Any, int]], list[float]]:
    """Lands what is in the topic: each batch's known_at and messages, and the MiB resident of the job and its Spark,
    twice a second. Raises RuntimeError when that is not `events` events."""
    from ingestion.events.stream_tables import BOOKS
    from plumbline.lake import tables as lake

    process = subprocess.Popen(
        [str(measured.PLUMB), "events", "run", "--once", "--batch", str(BATCH), "--json"], stdout=subprocess.PIPE
    )
    resident: list[float] = []
    watcher = threading.Thread(target=_memory, args=(process, resident))
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode or json.loads(out)["landed"] != events:
        raise RuntimeError(f"the job landed something else: {out!r}")
    batches: dict[Any, int] = {}
    for line in lake.opened(BOOKS).to_pyarrow_table(columns=["known_at", "messages"]).to_pylist():
        batches[line["known_at"]] = batches.get(line["known_at"], 0) + line["messages"]
    return sorted(batches.items()), resident


def freshness(rate: str) -> dict[str, Any]:
    """Events at a rate, as they are placed, for a minute: p50 and p99 of the histogram that the job serves.

    It begins behind what is in the topic, with empty tables: the window holds what came in this run.
    """
    from ingestion.events import produce
    from plumbline.servers import kafka

    _begin_anew()
    log = Path(measured.HOME / "events" / "job.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(measured.PLUMB), "events", "run", "--batch", str(BATCH)], stdout=out, stderr=out
        )
    try:
        while (address := re.search(r"http://\S+/metrics", log.read_text())) is None:
            time.sleep(0.2)
        for begin, seconds in ((EVENTS, WARM), (2 * EVENTS, SECONDS)):
            before = _buckets(address[0])
            count = int(rate) * seconds
            given = (_event(begin + n, clock.wall()) for n in range(count))
            produce.produce(kafka.broker(), given, float(rate), produce.Sent())
            while _buckets(address[0]).get(float("inf"), 0) < before.get(float("inf"), 0) + count:
                time.sleep(0.5)
        after = _buckets(address[0])
    finally:
        process.terminate()
        process.wait(60)
    counts = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    return {
        "rate": int(rate),
        "n": int(counts[float("inf")]),
        "window": int(after[float("inf")]),
        "p50_s": _quantile(counts, 0.5),
        "p99_s": _quantile(counts, 0.99),
    }


def _begin_anew() -> None:
    """Empty tables, and a consumer group that stands at the topic's end."""
    import shutil

    from confluent_kafka import Consumer, TopicPartition

    from ingestion.events import offsets, topics
    from plumbline.servers import kafka

    for part in ("lake", "streams"):
        shutil.rmtree(settings().home / part, ignore_errors=True)
    ends = offsets.partitions(kafka.broker())
    consumer = Consumer({**kafka.broker().client(), "group.id": offsets.GROUP, "enable.auto.commit": False})
    consumer.commit(
        offsets=[TopicPartition(topics.ORDERS, number, one.end) for number, one in ends.items()],
        asynchronous=False,
    )
    consumer.close()


def _event(number: int, at: Any) -> Any:
    from ingestion.events import produce

    customer = number * 7919 % CUSTOMERS
    order = {"order_id": number, "customer_id": customer, "units": 1 + number % 3, "total_cents": 100 + number % 5_000}
    return produce.event(order, at)


def empty(home: Path) -> None:
    """Takes away what an earlier run left in the home."""
    import shutil

    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)


def _memory(process: subprocess.Popen[bytes], peaks: list[float]) -> None:
    """MiB resident of the job and its children, twice a second."""
    while process.poll() is None:
        total = 0
        for line in subprocess.run(
            ["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            pid, parent, resident = map(int, line.split())
            total += resident if process.pid in (pid, parent) else 0
        peaks.append(total / 1024)
        time.sleep(0.5)


def _buckets(address: str) -> dict[float, float]:
    text = urllib.request.urlopen(address, timeout=5).read().decode()  # noqa: S310
    found = re.findall(r'events_freshness_seconds_bucket\{le="([^"]+)"[^}]*\} (\S+)', text)
    return {float(bound): float(count) for bound, count in found}


def _quantile(counts: dict[float, float], share: float) -> float:
    """As Prometheus has it: linear within a bucket."""
    wanted, low, below = share * counts[float("inf")], 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted:
            return (
                round(low + (bound - low) * (wanted - below) / max(count - below, 1), 2)
                if bound != float("inf")
                else low
            )
        low, below = bound, count
    return low


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
