"""The job over a real Kafka, a real Spark, Delta tables and Redis: each event once, whatever came and whoever died."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestion.events import offsets, order_events, produce, topics
from ingestion.events.produce import Message
from ingestion.events.stream_tables import StreamError, positions
from plumb.demo import stream_proof
from plumbline.lake import tables as lake
from plumbline.servers import kafka, services
from plumbline.servers.kafka import Broker
from plumbline.settings import ROOT
from plumbline.state import objects
from products.churn import CHURN
from tests import made_up_stream
from tests.conftest import inherited, use_home

pytestmark = [pytest.mark.slow, pytest.mark.servers]

VIEW = "customer_activity"
NOW = datetime(1997, 10, 7, 12, tzinfo=UTC)
CUSTOMERS = 40


def order(number: int, minutes_ago: float = 0.0, **more: Any) -> Message:
    row = {"order_id": number, "customer_id": number % CUSTOMERS, "units": 1 + number % 3, "total_cents": 10 * number}
    return produce.event({**row, **more}, NOW - timedelta(minutes=minutes_ago))


FIRST = [order(n, minutes_ago=13.37 * n) for n in range(1, 1_001)]  # the oldest are 9 days old
"""Events over nine days, so that every window has an edge among them."""

SECOND = [order(n, minutes_ago=(n * 7919) % 9_000) for n in range(1_001, 1_101)]
ENVELOPE = json.loads(order(2_000)[1])
DEBEZIUM = {
    "op": "c",
    "source": {"name": "shop"},
    "after": {"id": ENVELOPE["event_id"], "payload": json.dumps(ENVELOPE)},
}
BAD: dict[str, Message] = {
    "empty": (b"1", b""),
    "too_large": (b"1", b"\x1b[2J" * 260_000),  # no more than the topic takes, and more than it takes with headers
    "malformed": (b"1", b'{"schema": "orders.ev'),
    "wrong_type": (b"1", json.dumps({**ENVELOPE, "event_id": "bad-1", "units": "two"}).encode()),
    "out_of_range": (b"1", json.dumps({**ENVELOPE, "event_id": "bad-2", "units": 0}).encode()),
    "other_key": (b"77", json.dumps({**ENVELOPE, "event_id": "bad-3"}).encode()),
    "changed": order(17, minutes_ago=13.37 * 17, total_cents=1),
}


class Stream:
    """A home with a broker; `produced` are the ids of the events that were sent."""

    def __init__(self) -> None:
        self.produced = set[str]()

    @property
    def broker(self) -> Broker:
        """The private one, which may have come up again on another port."""
        return kafka.broker()

    def send(self, messages: list[Message]) -> None:
        produce.produce(self.broker, iter(messages), 0, produce.Sent())
        for key, value in messages:
            read = order_events.read(key, value, NOW)
            if isinstance(read, order_events.Event):
                self.produced.add(read.event_id)

    def abort(self, messages: list[Message]) -> None:
        from confluent_kafka import Producer

        client = Producer({**self.broker.client(), "transactional.id": "a shop", "log_level": 0})
        client.init_transactions()
        client.begin_transaction()
        for key, value in messages:
            client.produce(topics.ORDERS, key=key, value=value)
        client.flush()
        client.abort_transaction()

    def run(self, *more: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "plumb", "events", "run", "--once", "--json", *more],
            cwd=ROOT,
            env=inherited(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def killed(self, point: str) -> None:
        command = [sys.executable, "-m", "tests.ingestion.events.killed_stream", point]
        done = subprocess.run(command, cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr[-2000:]

    def differences(self) -> list[str]:
        return stream_proof.differences(CHURN, VIEW, self.produced)


@contextmanager
def streaming(home: Path) -> Iterator[Stream]:
    """A home with a broker whose topics are there; its servers are stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_REMOTE", raising=False)
        use_home(home, patch, now=NOW.isoformat())
        try:
            topics.ensure(kafka.broker())
            yield Stream()
        finally:
            services.stop_all()


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    with streaming(tmp_path_factory.mktemp("stream") / "home") as found:
        yield found


def test_each_event_lands_once_and_the_rest_is_named_though_the_job_is_killed_between_delta_and_redis(
    stream: Stream,
) -> None:
    stream.abort([order(n) for n in range(9_000, 9_040)])
    stream.send([*FIRST, *FIRST[::10], (b"0", json.dumps(DEBEZIUM).encode()), *BAD.values()])
    stream.killed("events in raw, no features")
    stream.killed("features in Delta, not in Redis")
    assert lake.version(stream_proof.BOOKS) is None
    done = stream.run()
    assert (done["landed"], done["duplicates"]) == (1_001, 100)
    assert done["reasons"] == dict.fromkeys(BAD, 1)
    assert stream.differences() == []


def test_dead_letters_are_in_their_topic_and_listed_and_sent_again(stream: Stream) -> None:
    from confluent_kafka import Consumer

    options = {"group.id": "a test", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**stream.broker.client(), **options})
    consumer.subscribe([topics.DEAD_LETTERS])
    found = consumer.consume(len(BAD), timeout=20)
    consumer.close()
    reasons = Counter(dict(message.headers())["reason"].decode() for message in found)
    assert reasons == Counter(list(BAD))
    assert {message.value() for message in found} == {value[: order_events.LARGEST] for _, value in BAD.values()}
    listed = subprocess.run(
        [sys.executable, "-m", "plumb", "events", "dead-letters", "--reason", "changed"],
        cwd=ROOT,
        env=inherited(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "event order-17: total_cents was 170, is 1" in listed.stdout
    again = subprocess.run(
        [sys.executable, "-m", "plumb", "events", "dead-letters", "--replay", "--json"],
        cwd=ROOT,
        env=inherited(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout) == {"sent": len(BAD)}


def test_a_group_moved_back_and_a_partition_more_read_again_and_land_nothing_twice(stream: Stream) -> None:
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka.cimpl import NewPartitions

    admin = topics.admin(stream.broker)
    admin.create_partitions([NewPartitions(topics.ORDERS, topics.PARTITIONS + 1)])[topics.ORDERS].result(10)
    stream.send(SECOND)
    stream.killed("events in raw, no features")
    consumer = Consumer({**stream.broker.client(), "group.id": offsets.GROUP, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topics.ORDERS, 0, 10)], asynchronous=False)
    consumer.close()
    end = offsets.partitions(stream.broker)[0].end
    done = stream.run()
    assert done["landed"] == 0, "the batch that was cut off has them; its features and books are made up for"
    assert done["duplicates"] + done["dead_letters"] >= end - 10
    assert stream.differences() == []


def test_messages_that_the_broker_deleted_before_they_landed_are_named_and_accepted_by_hand(stream: Stream) -> None:
    from confluent_kafka import TopicPartition

    before = set(stream.produced)
    stream.send([order(n) for n in range(3_000, 3_100)])
    lost = {number: partition for number, partition in offsets.partitions(stream.broker).items() if partition.end}
    ends = [TopicPartition(topics.ORDERS, number, partition.end) for number, partition in lost.items()]
    admin = topics.admin(stream.broker)
    for future in admin.delete_records(ends).values():
        future.result(10)
    refused = subprocess.run(
        [sys.executable, "-m", "plumb", "events", "run", "--once"],
        cwd=ROOT,
        env=inherited(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "the broker has deleted messages that had not landed: partition" in refused.stderr
    assert "Traceback" not in refused.stderr
    stream.produced = before
    assert stream.run("--accept-loss")["messages"] == 0
    stream.send([order(4_000)])
    assert stream.run()["landed"] == 1, "the books say what is lost, though nothing came behind it"
    absent = sum(line["absent"] for line in stream_proof.rows(stream_proof.BOOKS) if line["batch"].endswith("/lost"))
    assert absent == 100
    assert stream.differences() == []


@pytest.mark.long
def test_a_job_that_lost_its_lease_while_it_was_frozen_writes_nothing_and_ends(stream: Stream, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as told:
        command = [sys.executable, "-m", "plumb", "events", "run"]
        job = subprocess.Popen(command, cwd=ROOT, env=inherited(), stdout=told, stderr=told)
    try:
        stream.send([order(5_000)])
        deadline = time.monotonic() + 120
        while "messages/s" not in log.read_text() and time.monotonic() < deadline and job.poll() is None:
            stream.send([order(5_000)])
            time.sleep(0.5)
        job.send_signal(signal.SIGSTOP)
        versions = [lake.version(table) for table in (stream_proof.EVENTS, stream_proof.BOOKS)]
        lease = objects.read("leases/churn-events.json")
        assert lease is not None
        heir = {**lease.json(), "host": "elsewhere", "token": "heir", "fence": lease.json()["fence"] + 1}
        objects.replace_json("leases/churn-events.json", heir, if_match=lease.etag)
        produce.produce(stream.broker, iter([order(5_001)]), 0, produce.Sent())
        job.send_signal(signal.SIGCONT)
        assert job.wait(60) == 5
    finally:
        job.kill()
    assert "was given fence" in log.read_text() and "Traceback" not in log.read_text().partition("plumb:")[2]
    assert versions == [lake.version(table) for table in (stream_proof.EVENTS, stream_proof.BOOKS)]
    now = objects.read("leases/churn-events.json")
    assert now is not None
    objects.replace_json("leases/churn-events.json", {**heir, "state": "free"}, if_match=now.etag)
    stream.produced.add("order-5001")
    assert stream.run()["landed"] == 1
    assert stream.differences() == []


def test_a_topic_that_was_made_anew_is_refused_though_it_has_grown_past_what_had_landed(stream: Stream) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.cimpl import NewTopic

    admin = topics.admin(stream.broker)
    ends = [partition.end for partition in offsets.partitions(stream.broker).values()]
    admin.delete_topics([topics.ORDERS])[topics.ORDERS].result(10)
    while topics.ORDERS in admin.list_topics(timeout=10).topics:
        time.sleep(0.1)
    admin.create_topics([NewTopic(topics.ORDERS, len(ends))])[topics.ORDERS].result(10)
    client = Producer({**stream.broker.client(), "log_level": 0})
    for number, end in enumerate(ends):
        for _ in range(end + 1):
            client.produce(topics.ORDERS, value=b"{}", partition=number)
    client.flush()
    with pytest.raises(StreamError, match=r"shop\.orders was made anew: its id is .*, what landed is of "):
        offsets.begin(stream.broker, positions())


@pytest.mark.long
def test_a_topic_that_was_made_anew_is_read_from_its_start_when_told_and_the_books_hold_both(stream: Stream) -> None:
    from validation.churn import stream_books

    stream.send([*SECOND, order(6_000)])
    done = stream.run("--accept-new-topic")
    assert (done["landed"], done["duplicates"]) == (1, len(SECOND))
    assert done["dead_letters"] == done["messages"] - len(SECOND) - 1
    assert stream.differences() == []
    stream.send([order(6_001)])
    assert stream.run()["landed"] == 1, "it is asked once"
    assert stream.differences() == []
    run = made_up_stream.run_of(day=NOW.date())
    window = stream_books.take(run, CHURN.streams[VIEW])
    assert window is not None
    verdict = stream_books.check(run, window)
    assert verdict.passed
    assert {place.partition("/")[0] for place in verdict.extra["until"]} == {"shop.orders", "shop.orders#2"}
