"""What the stream tells of itself: metrics under kafka_exporter's names and our own, and a line every few seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ingestion.events import offsets
from ingestion.events.landing import Landed
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.metrics import instrument
from plumbline.progress import say, warn
from plumbline.servers import services
from plumbline.servers.kafka import Broker

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LOOKS = 1.0
PRODUCT = "churn"


class Watch:
    """Counts batches; looks at the broker once a second at most."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._said = self._looked = clock.monotonic()
        self._messages, self._fresh = 0, deque[float](maxlen=20_000)
        self._lag = 0

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
        ages = readable.timestamp() - landed.event_times / 1e6
        fresh = instrument("events_freshness_seconds").labels(PRODUCT)
        for age in ages:
            fresh.observe(age)
        self._fresh.extend(ages)
        self._messages += landed.total("messages")
        if (now := clock.monotonic()) - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._look(positions)
        if now - self._said > SECONDS_BETWEEN_LINES:
            self._say(now - self._said)
            self._said, self._messages = now, 0

    def end(self, positions: Mapping[tuple[str, int], int]) -> None:
        """The last look."""
        self._look(positions)

    def _look(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Commits the group's offsets and reads the ends. A broker that does not answer is the source's to tell."""
        try:
            offsets.commit(self._broker, positions)
            found = offsets.partitions(self._broker)
        except Exception as error:
            warn(f"the consumer group is not up to date at the broker: {type(error).__name__}")
            return
        self._lag = 0
        for (topic, number), partition in found.items():
            at = positions.get((topic, number), partition.first)
            labels = (topic, str(number))
            instrument("kafka_topic_partition_current_offset").labels(*labels).set(partition.end)
            instrument("kafka_consumergroup_current_offset").labels(offsets.GROUP, *labels).set(at)
            instrument("kafka_consumergroup_lag").labels(offsets.GROUP, *labels).set(max(partition.end - at, 0))
            self._lag += max(partition.end - at, 0)

    def _say(self, seconds: float) -> None:
        ages = sorted(self._fresh)
        told = f", freshness p50 {_at(ages, 0.5)}, p99 {_at(ages, 0.99)}" if ages else ""
        say(f"{self._messages / seconds:,.0f} messages/s, lag {self._lag:,}{told}")
        self._fresh.clear()


def _at(ages: list[Any], share: float) -> str:
    age = ages[min(int(share * len(ages)), len(ages) - 1)]
    return f"{age:,.1f} s" if age < 3600 else f"{age / 3600:,.0f} h"


@contextmanager
def served(port: int) -> Iterator[None]:
    """Serves the metrics on loopback meanwhile. Raises ServiceUnavailable for a port that is taken."""
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, services.HOST)
    except OSError as error:
        raise ServiceUnavailable(f"no metrics on {services.HOST}:{port}: {error.strerror}; --metrics-port") from None
    try:
        say(f"metrics at http://{services.HOST}:{server.server_port}/metrics")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
