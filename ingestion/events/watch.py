"""What the stream tells of itself: metrics under kafka_exporter's names and our own, a line every few seconds, and once
a minute what it read and wrote, as lineage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any

from ingestion.events import landing, offsets, order_events, stream_tables
from ingestion.events.landing import Landed
from ingestion.events.topics import ORDERS
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.lineage import events as lineage
from plumbline.metrics import STREAM_SERVER, instrument
from plumbline.progress import say, warn
from plumbline.servers import services
from plumbline.servers.kafka import Broker
from products.churn import CHURN

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LOOKS = 1.0
IDLE_LOOKS = 5.0
"""Seconds after which the broker is asked for its ends though no batch was done: a job that hangs falls behind."""

SECONDS_BETWEEN_EVENTS = 60.0
LATE = timedelta(minutes=1)
"""An event that reaches the broker this long after the order was placed is late by whoever sent it."""

PRODUCT = CHURN.name


class Watch:
    """Counts batches; looks at the broker once a second at most. `table` is where the features go, `topic` the name
    in the tables of the topic that is read."""

    def __init__(self, broker: Broker, table: str, topic: str = ORDERS) -> None:
        self._broker, self._table, self._topic = broker, table, topic
        self._said = self._looked = self._sent = clock.monotonic()
        self._messages, self._fresh = 0, deque[float](maxlen=20_000)
        self._lag = 0
        self._read: dict[tuple[str, int], tuple[int, int]] = {}
        self._rows: dict[str, int] = {}
        for name in ("landed", "late", "duplicates"):  # there from the start: a first value is no increase
            instrument(f"events_{name}_total").labels(PRODUCT)
        for reason in (*order_events.REASONS, landing.CHANGED):
            instrument("events_dead_letters_total").labels(PRODUCT, reason)
        for name in ("freshness", "batch"):
            instrument(f"events_{name}_seconds").labels(PRODUCT)

    def batch(
        self, landed: Landed, readable: datetime, seconds: float, positions: Mapping[tuple[str, int], int]
    ) -> None:
        """A batch that is done. `readable` is when its rows could be read in Redis, `seconds` what it took."""
        for name in ("landed", "duplicates"):
            instrument(f"events_{name}_total").labels(PRODUCT).inc(landed.total(name))
        for reason, count in landed.reasons.items():
            instrument("events_dead_letters_total").labels(PRODUCT, reason).inc(count)
        instrument("events_batch_seconds").labels(PRODUCT).observe(seconds)
        instrument("events_known_at_timestamp_seconds").labels(PRODUCT).set(landed.known_at.timestamp())
        in_time = _in_time(landed)
        instrument("events_late_total").labels(PRODUCT).inc(int((~in_time).sum()))
        ages = readable.timestamp() - landed.event_times[in_time] / 1e6
        fresh = instrument("events_freshness_seconds").labels(PRODUCT)
        for age in ages:
            fresh.observe(age)
        self._fresh.extend(ages)
        self._messages += landed.total("messages")
        self._remember(landed)
        if (now := clock.monotonic()) - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._look(positions)
        if now - self._said > SECONDS_BETWEEN_LINES:
            self._say(now - self._said)
            self._said, self._messages = now, 0
        if now - self._sent > SECONDS_BETWEEN_EVENTS:
            self.tell()

    def look(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Looks at the broker when no batch has for some seconds; the group's offsets stay as they are."""
        if (now := clock.monotonic()) - self._looked > IDLE_LOOKS:
            self._looked = now
            self._look(dict(positions), commit=False)

    def end(self, positions: Mapping[tuple[str, int], int]) -> None:
        """The last look."""
        self._look(positions)

    def tell(self) -> None:
        """Sends what was read and written since the last time, as lineage; nothing for nothing."""
        self._sent = clock.monotonic()
        read, rows = self._read, self._rows
        self._read, self._rows = {}, {}
        if read:
            source = f"kafka://{self._broker.servers.partition(',')[0]}"
            lineage.streamed(CHURN, source, read, (stream_tables.EVENTS, stream_tables.DEAD, self._table), rows)

    def _remember(self, landed: Landed) -> None:
        for (_, number), counts in landed.partitions.items():
            place = (ORDERS, number)
            first, until = self._read.get(place, (counts.low, counts.high + 1))
            self._read[place] = (min(first, counts.low), max(until, counts.high + 1))
        for table, what in ((stream_tables.EVENTS, "landed"), (stream_tables.DEAD, "dead_letters")):
            self._rows[table] = self._rows.get(table, 0) + landed.total(what)

    def _look(self, positions: Mapping[tuple[str, int], int], *, commit: bool = True) -> None:
        """Commits the group's offsets and reads the ends. A broker that does not answer is the source's to tell."""
        here = {number: at for (topic, number), at in positions.items() if topic == self._topic}
        try:
            if commit:
                offsets.commit(self._broker, here)
            found = offsets.partitions(self._broker)
        except Exception as error:
            warn(f"the consumer group is not up to date at the broker: {type(error).__name__}")
            return
        self._lag = 0
        for number, partition in found.items():
            at = here.get(number, partition.first)
            labels = (ORDERS, str(number))
            instrument("kafka_topic_partition_current_offset").labels(*labels).set(partition.end)
            instrument("kafka_consumergroup_current_offset").labels(offsets.GROUP, *labels).set(at)
            instrument("kafka_consumergroup_lag").labels(offsets.GROUP, *labels).set(max(partition.end - at, 0))
            self._lag += max(partition.end - at, 0)

    def _say(self, seconds: float) -> None:
        ages = sorted(self._fresh)
        told = f", freshness p50 {_at(ages, 0.5)}, p99 {_at(ages, 0.99)}" if ages else ""
        say(f"{self._messages / seconds:,.0f} messages/s, lag {self._lag:,}{told}")
        self._fresh.clear()


def _in_time(landed: Landed) -> Any:
    """Of each event that landed, whether it came to the broker within LATE. The broker's clock is the real one, the
    orders' is the platform's."""
    put_back = (clock.now() - clock.wall()).total_seconds()
    return landed.appended / 1e6 + put_back - landed.event_times / 1e6 <= LATE.total_seconds()


def _at(ages: list[Any], share: float) -> str:
    age = ages[min(int(share * len(ages)), len(ages) - 1)]
    return f"{age:,.1f} s" if age < 3600 else f"{age / 3600:,.0f} h"


@contextmanager
def served(host: str, port: int, *, noted: bool) -> Iterator[None]:
    """Serves the metrics meanwhile; `noted`, the home's Prometheus is told where.

    Raises ServiceUnavailable for a port that is taken.
    """
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise ServiceUnavailable(f"no metrics on {host}:{port}: {error.strerror}; --metrics-port") from None
    with ExitStack() as stack:
        stack.callback(thread.join, timeout=5)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        if noted:
            stack.enter_context(services.noted(STREAM_SERVER, server.server_port))
        say(f"metrics at http://{host}:{server.server_port}/metrics")
        yield
