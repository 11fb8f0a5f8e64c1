"""Whether the order stream has reached the end of a day: then no event counts as known on that day any more.

A batch's `known_at` only grows, so one batch that counts from the next day on closes the day. On a quiet night none may
come: then the day is closed once all that the topic holds has landed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ingestion.events import offsets, stream_tables, topics
from ingestion.events.offsets import GROUP
from ingestion.events.stream_tables import BOOKS, EVENTS
from plumbline import clock
from plumbline.errors import NotYet, ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.servers import kafka

if TYPE_CHECKING:
    from plumbline.servers.kafka import Broker

NEVER, REACHED, BEHIND = "never", "reached", "behind"
WAY = "plumb events run --once"
BETWEEN = 10.0
"""Seconds between two questions."""


@dataclass(frozen=True)
class Lag:
    """How many messages of a partition have not landed, and the time of the newest event that has."""

    topic: str
    partition: int
    messages: int
    newest_event: datetime | None

    def told(self) -> str:
        """The same in words."""
        newest = "no event of it is among the last two days'"
        if self.newest_event is not None:
            newest = f"its newest event that landed is of {self.newest_event:%Y-%m-%d %H:%M:%S}"
        return f"{self.topic} partition {self.partition}: {self.messages:,} messages behind, {newest}"


@dataclass(frozen=True)
class Answer:
    """`state` is `never` (no stream ever ran in this home), `reached` or `behind`; `message` says it in words."""

    day: date
    state: str
    message: str
    known_at: datetime | None = None
    lags: tuple[Lag, ...] = field(default=())

    @property
    def over(self) -> bool:
        """Whether nobody needs to wait."""
        return self.state != BEHIND


def ask(day: date) -> Answer:
    """How far the stream is, by its books (`raw.order_batches`); by the broker where they do not say enough.

    Raises LakeError for books that cannot be read.
    """
    if lake.version(EVENTS) is None and lake.version(BOOKS) is None:
        return Answer(day, NEVER, "no order stream ever ran in this home")
    end, newest = clock.end_of(day), newest_batch()
    if clock.now() < end:
        return Answer(day, BEHIND, f"{day} is not over: the clock says {clock.now():%Y-%m-%d %H:%M} UTC", newest)
    if newest is not None and newest >= end:
        return Answer(day, REACHED, f"the newest batch counts from {newest:%Y-%m-%d %H:%M:%S} UTC", newest)
    so_far = f"the newest batch counts from {newest:%Y-%m-%d %H:%M:%S} UTC" if newest else "no batch has landed"
    try:
        lags = tuple(lag for lag in lagging(kafka.broker()) if lag.messages)
    except (ServiceUnavailable, stream_tables.StreamError) as error:
        return Answer(day, BEHIND, f"{so_far}, before the end of {day}; what it lacks is not known: {error}", newest)
    if not lags:
        return Answer(day, REACHED, f"all that the topic holds has landed; {so_far}", newest)
    told = "; ".join(lag.told() for lag in lags)
    return Answer(day, BEHIND, f"{so_far}, before the end of {day}: {told}", newest, lags)


def wait_for(day: date, seconds: float) -> Answer:
    """The answer as soon as nobody needs to wait, or the one after these seconds."""
    until = clock.monotonic() + seconds
    while not (answer := ask(day)).over and (left := until - clock.monotonic()) > 0:
        time.sleep(min(BETWEEN, left))
    return answer


def require(day: date) -> Answer:
    """The same. Raises NotYet, which says what lags and what to run, for a stream that is behind."""
    answer = ask(day)
    if not answer.over:
        raise NotYet(
            f"the order stream has not reached the end of {day}: {answer.message}. Look whether it runs, or land what "
            f"is there by `{WAY}`; then run the same again"
        )
    return answer


def newest_batch() -> datetime | None:
    """From when the newest batch in the books counts; None without one."""
    import pyarrow.compute as pc

    found = _of_last_days(BOOKS, ["known_at"], days=1)
    newest = pc.max(found["known_at"]).as_py() if found is not None and len(found) else None
    return None if newest is None else clock.in_utc(newest)


def lagging(broker: Broker) -> list[Lag]:
    """Each partition of the topic with what of it has not landed. Raises ServiceUnavailable, and StreamError when the
    topic is another one than was read."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin._listoffsets import OffsetSpec

    name, landed = offsets.followed(broker, stream_tables.positions())
    newest = _newest_events(name)
    try:
        client = topics.admin(broker)
        topic = client.list_topics(topics.ORDERS, timeout=topics.TIMEOUT).topics[topics.ORDERS]
        asked = [TopicPartition(topics.ORDERS, number) for number in sorted(topic.partitions)]
        ends: list[dict[int, int]] = []
        for what in (OffsetSpec.earliest(), OffsetSpec.latest()):  # type: ignore[no-untyped-call]
            answers = client.list_offsets(dict.fromkeys(asked, what), request_timeout=topics.TIMEOUT) if asked else {}
            ends.append({at.partition: answer.result(topics.TIMEOUT).offset for at, answer in answers.items()})
    except KafkaException as error:
        raise kafka.failure(broker, error.args[0]) from None
    first, last = ends
    found = []
    for number, end in sorted(last.items()):
        at = max(landed.get(number, 0), first[number])
        behind = end - at if end > at and _holds(broker, number, at, end) else 0
        found.append(Lag(topics.ORDERS, number, behind, newest.get(number)))
    return found


def _holds(broker: Broker, partition: int, at: int, end: int) -> bool:
    """Whether there is a message from `at` on: the marks that end a transaction have offsets too, and what was aborted.

    Raises ServiceUnavailable.
    """
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    options = {"group.id": GROUP, "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 0}
    consumer = Consumer({**broker.client(), **options, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topics.ORDERS, partition, at)])
        message = consumer.poll(topics.TIMEOUT)
        if message is not None and (error := message.error()) is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise kafka.failure(broker, error)
            return (message.offset() or 0) < end
        return True
    finally:
        consumer.close()


def _newest_events(topic: str) -> dict[int, datetime]:
    """By partition of a topic, the time of the newest event of the last two days of raw."""
    found = _of_last_days(EVENTS, ["topic", "partition", "event_time"], days=2)
    if found is None:
        return {}
    rows = found.group_by(["topic", "partition"]).aggregate([("event_time", "max")]).to_pylist()
    return {row["partition"]: clock.in_utc(row["event_time_max"]) for row in rows if row["topic"] == topic}


def _of_last_days(table: str, columns: list[str], days: int) -> Any:
    """The rows of the newest days that a table has, as an Arrow table; None for a table that is not there or empty."""
    import pyarrow.compute as pc

    if lake.version(table) is None:
        return None
    opened = lake.opened(table)
    dates = sorted({date.fromisoformat(str(part["known_date"])) for part in opened.partitions()})[-days:]
    if not dates:
        return None
    return opened.to_pyarrow_dataset().to_table(columns=columns, filter=pc.field("known_date").isin(dates))
