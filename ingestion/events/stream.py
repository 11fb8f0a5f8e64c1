"""The job of the order stream: Kafka to raw, to features, to Redis, batch by batch, exactly once.

Spark keeps the offsets of each batch in its checkpoint before the batch is worked on. What a batch writes goes by its
number (ingestion/events/landing.py), so a batch that is done again writes nothing twice. A checkpoint that was lost, or
an operator who moved the consumer group back, costs a second reading: it lands as duplicates.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from ingestion.events import dead_letters, offsets, topics, watch
from ingestion.events.landing import Activity, Landed, Landing
from ingestion.events.stream_tables import StreamError, positions, unfinished
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.lake import spark
from plumbline.progress import say
from plumbline.servers import kafka
from plumbline.servers.services import HOST
from plumbline.settings import settings
from plumbline.state import leases

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

COMMITTED_WITHIN = 10.0
"""Seconds in which Spark notes that a batch is done."""

MOST = 100_000
"""Messages in a batch: what two cores land in some seconds."""


@dataclass(frozen=True)
class Plan:
    """How the job runs. `every` are the seconds from one batch to the next; `once` drains the topic and ends.

    `then` gets the rows of features of each batch once they are in the lake, and brings them to where they are read;
    `ready` is called before the first batch and has what the table holds already read there.
    """

    activity: Activity
    table: str
    then: Callable[[pa.Table], None]
    ready: Callable[[], None]
    once: bool = False
    every: float = 1.0
    most: int = MOST
    accept_loss: bool = False
    accept_new_topic: bool = False
    metrics_port: int = 0
    metrics_host: str = HOST


@dataclass
class Report:
    """What a run of the job did."""

    batches: int = 0
    messages: int = 0
    landed: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, landed: Landed) -> None:
        """Counts a batch in."""
        self.batches += 1
        for name in ("messages", "landed", "duplicates", "dead_letters"):
            setattr(self, name, getattr(self, name) + landed.total(name))
        for reason, count in landed.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count


def run(plan: Plan) -> Report:
    """Runs until the topic is drained (`once`) or SIGTERM or SIGINT comes; then the batch at work is done first.

    Raises StreamError for offsets that are not there any more or do not fit the books, LeaseLost (exit code 5) right
    before a write when another job took the lease while this one was frozen, ServiceUnavailable.
    """
    os.environ["PLUMBLINE_SPARK_IN_PROCESS"] = "true"
    settings.cache_clear()
    with leases.hold("churn", "the order stream", "events") as lease:
        _listen(stopping := threading.Event())
        broker = kafka.broker()
        topics.ensure(broker)
        booked = positions()  # not before the lease: a job that is about to end still moves them
        begin = offsets.begin(broker, booked, accept_loss=plan.accept_loss, accept_new_topic=plan.accept_new_topic)
        session = spark.session()
        _listen(stopping)  # Spark took SIGINT for itself
        session.conf.set("spark.sql.adaptive.enabled", "false")  # it plans anew at each stage, and these are small
        with watch.served(plan.metrics_host, plan.metrics_port, noted=not plan.once):
            return _Job(plan, broker, session, {**begin.positions, **booked}, begin, lease.check, stopping).run()


def _listen(stopping: threading.Event) -> None:
    """Has SIGTERM and SIGINT set it: an exit raised wherever the job is would be a traceback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


class _Job:
    def __init__(
        self,
        plan: Plan,
        broker: kafka.Broker,
        session: SparkSession,
        booked: dict[tuple[str, int], int],
        begin: offsets.Begin,
        check: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self._plan, self._broker, self._session, self._check = plan, broker, session, check
        self._positions, self._begin = booked, begin
        self._report = Report()
        self._failure: BaseException | None = None
        self._landing: Landing  # of the query, once that has begun
        self._done: int | None = None
        self._at_work, self._stopping = threading.Lock(), stopping
        self._undertaker = dead_letters.Sender(broker)
        self._watch = watch.Watch(broker, plan.table, begin.topic)
        self._untold: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def run(self) -> Report:
        begun = clock.monotonic()
        try:
            query = self._start()
            while query.isActive and not self._stopping.wait(0.2):
                self._tell()
                self._watch.look(self._positions)
            with self._at_work:
                self._let_commit(query)
                query.stop()
            self._tell()
            self._raise(query)
            self._watch.end(self._positions)
        except (Py4JError, ConnectionError) as error:
            raise ServiceUnavailable(
                f"the job's Spark ended under it ({type(error).__name__}): the same command goes on where it was"
            ) from None
        finally:
            self._tell()  # what was done before Spark ended
            self._watch.tell()
        self._report.seconds = clock.monotonic() - begun
        return self._report

    def _tell(self) -> None:
        """Counts the batches that are done since, and says so: beside the next one's work, which need not wait."""
        while not self._untold.empty():
            self._watch.batch(*self._untold.get())

    def _let_commit(self, query: StreamingQuery) -> None:
        """Waits until Spark has noted that the last batch is done: stopped before, the next run would do it again."""
        deadline = clock.monotonic() + COMMITTED_WITHIN
        while query.isActive and self._failure is None and self._done is not None and clock.monotonic() < deadline:
            if (progress := query.lastProgress) is not None and progress["batchId"] >= self._done:
                return
            time.sleep(0.05)

    def _start(self) -> StreamingQuery:
        source = self._session.readStream.format("kafka").options(**self._broker.spark())
        source = source.option("subscribe", topics.ORDERS).option("failOnDataLoss", "true")
        source = source.option("startingOffsets", self._begin.starting).option("maxOffsetsPerTrigger", self._plan.most)
        source = source.option("kafka.isolation.level", "read_committed")  # what was aborted is no order
        sink = source.load().writeStream.queryName("order-events").foreachBatch(self._batch)
        sink = sink.option("checkpointLocation", self._begin.checkpoint)
        when = (
            sink.trigger(availableNow=True)
            if self._plan.once
            else sink.trigger(processingTime=f"{1000 * self._plan.every:.0f} milliseconds")
        )
        with self._at_work:
            query = when.start()
            try:
                self._open(query.id)
            except BaseException:
                self._stopping.set()
                query.stop()
                raise
        return query

    def _open(self, query: str) -> None:
        """What lacks of before in the tables, in Redis and in the books, ahead of the query's first batch."""
        self._finish_others(query)
        self._check()
        self._plan.ready()
        self._landing = Landing(query, self._plan.activity, self._plan.table, self._check, self._begin.topic)
        self._landing.book_lost(self._begin.lost, self._positions)

    def _batch(self, messages: DataFrame, number: int) -> None:
        """Lands one batch and brings it online. What it raises ends the query."""
        while not self._at_work.acquire(timeout=0.1):  # whoever stops the query holds it, and waits for this batch
            if self._stopping.is_set():
                raise _Stopped
        try:
            if self._stopping.is_set():
                raise _Stopped
            self._land(messages, number, clock.monotonic())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._at_work.release()

    def _land(self, messages: DataFrame, number: int, begun: float) -> None:
        landed, features = self._landing.land(messages, number)
        self._check()
        if features.num_rows:
            self._plan.then(features)
        readable = clock.now()
        if landed.total("dead_letters"):
            self._undertaker.send(landed.batch)
        self._landing.book(landed, self._positions, number)
        self._report.add(landed)
        self._done = number
        self._untold.put((landed, readable, clock.monotonic() - begun, dict(self._positions)))

    def _finish_others(self, query: str) -> None:
        """Does the rest of batches that landed and were cut off there, where Spark does not know of them any more: what
        is read of them again are duplicates, of which nothing follows."""
        for other, number in unfinished(query):
            landing = Landing(other, self._plan.activity, self._plan.table, self._check)
            landed = landing.finish(self._session, number)
            if landed.reasons:
                self._undertaker.send(landed.batch)
            landing.book(landed, dict(self._positions), number)
            say(f"batch {landed.batch} had landed and was not done: it is now")

    def _raise(self, query: StreamingQuery) -> None:
        if self._failure is not None and not isinstance(self._failure, _Stopped):
            raise self._failure
        if (error := query.exception()) is not None and not self._stopping.is_set():
            raise StreamError(offsets.explained(str(error)))


class _Stopped(Exception):
    """A batch that was about to begin when the job was told to stop: the next run does it."""
