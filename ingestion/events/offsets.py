"""Where the job begins to read: where its checkpoint is, unless that is gone or an operator moved the consumer group.

The truth are the books (`raw.order_batches`): up to which offset all has landed. The consumer group's committed offsets
are written for others to see how far behind the job is; an operator moves them back to have messages read again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion.events import topics
from ingestion.events.stream_tables import StreamError
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.progress import warn
from plumbline.servers import kafka
from plumbline.servers.kafka import Broker
from plumbline.settings import settings
from plumbline.state import objects

if TYPE_CHECKING:
    from confluent_kafka import Consumer

GROUP = kafka.GROUP
KEY = "streams/order-events.json"
OURS = "committed by plumbline"
"""What stands beside an offset that the job committed; beside one that an operator set it does not."""


@dataclass(frozen=True)
class Begin:
    """Where the query's checkpoint is, from which offsets a new one starts (Spark's JSON), and what was accepted as
    lost: of a partition the offsets from, and up to, not with."""

    checkpoint: str
    starting: str
    lost: Mapping[tuple[str, int], tuple[int, int]]

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The same offsets, by topic and partition."""
        found = json.loads(self.starting).items()
        return {(topic, int(number)): at for topic, parts in found for number, at in parts.items()}


@dataclass(frozen=True)
class Partition:
    """What the broker says of a partition: its first offset and the one behind its last, and what the group has."""

    first: int
    end: int
    committed: int | None
    ours: bool


def partitions(broker: Broker) -> dict[tuple[str, int], Partition]:
    """Each partition of the topic of orders. Raises ServiceUnavailable."""
    from confluent_kafka import TopicPartition

    with _group(broker) as consumer:
        topic = consumer.list_topics(topics.ORDERS, timeout=topics.TIMEOUT).topics[topics.ORDERS]
        asked = [TopicPartition(topics.ORDERS, number) for number in sorted(topic.partitions)]
        found = {}
        for one in _patiently(lambda: consumer.committed(asked, timeout=topics.TIMEOUT)):
            place = TopicPartition(one.topic, one.partition)
            first, end = consumer.get_watermark_offsets(place, timeout=topics.TIMEOUT)
            has = one.offset if one.offset >= 0 else None
            found[one.topic, one.partition] = Partition(first, end, has, one.metadata == OURS)
        return found


@contextmanager
def _group(broker: Broker) -> Iterator[Consumer]:
    """A member of the job's group. Raises ServiceUnavailable for what the broker does not answer meanwhile."""
    from confluent_kafka import Consumer, KafkaException

    options = {**broker.client(), "group.id": GROUP, "enable.auto.commit": False, "log_level": 0}
    consumer = Consumer(options)
    try:
        yield consumer
    except KafkaException as error:
        raise ServiceUnavailable(f"Kafka at {broker.servers} does not answer: {error.args[0].str()}") from None
    finally:
        consumer.close()


def _patiently(ask: Callable[[], Any]) -> Any:
    """An answer about a group: a broker that has just come up, or made its first group, takes some moments."""
    from confluent_kafka import KafkaError, KafkaException

    passing = (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    )
    deadline = clock.monotonic() + topics.TIMEOUT
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in passing or clock.monotonic() > deadline:
                raise
            time.sleep(0.2)


def commit(broker: Broker, positions: Mapping[tuple[str, int], int]) -> None:
    """Says at the broker how far the job is. Raises ServiceUnavailable."""
    from confluent_kafka import TopicPartition

    given = [TopicPartition(topic, number, at, OURS) for (topic, number), at in sorted(positions.items())]
    with _group(broker) as consumer:
        consumer.commit(offsets=given, asynchronous=False)


def begin(broker: Broker, booked: Mapping[tuple[str, int], int], *, accept_loss: bool = False) -> Begin:
    """Where to begin, given up to where the books say that all has landed. An operator's move back is followed.

    Raises StreamError when messages between the books and the first that the broker has are gone (`accept_loss` goes on
    behind them, and the books say so), when the group was moved forward, or the topic is another one than was read.
    """
    at_broker, starts, lost = partitions(broker), dict[tuple[str, int], int](), dict[tuple[str, int], tuple[int, int]]()
    moved = False
    for place, partition in at_broker.items():
        position = booked.get(place)
        if position is None and not booked:  # the first time: where an operator put the group, else all there is
            starts[place] = partition.first if partition.ours or partition.committed is None else partition.committed
            continue
        position = position or 0  # a partition that was added
        if position > partition.end:
            raise StreamError(
                f"{_named(place)} ends at offset {partition.end:,}, but {position:,} messages of it have landed: it is "
                "not the topic that was read before. Point PLUMBLINE_KAFKA_URL at the broker that holds that one"
            )
        if partition.committed is not None and not partition.ours and place in booked:
            if partition.committed > position:
                raise StreamError(
                    f"{_named(place)}: somebody moved the consumer group {GROUP} forward to {partition.committed:,}, "
                    f"past {partition.committed - position:,} messages that have not landed. Move it back to "
                    f"{position:,} at most, with kafka-consumer-groups.sh --reset-offsets"
                )
            if partition.committed < position:
                warn(f"{_named(place)}: the group was moved back to {partition.committed:,}: reading from there again")
                moved, position = True, partition.committed
        if position < partition.first:
            lost[place] = (position, partition.first)
            position = partition.first
        starts[place] = position
    for place in booked.keys() - at_broker.keys():
        raise StreamError(f"{_named(place)} is not there any more, {booked[place]:,} messages of it have landed")
    if lost and not accept_loss:
        told = "; ".join(f"{_named(place)}: {a:,} to {b - 1:,} ({b - a:,})" for place, (a, b) in lost.items())
        raise StreamError(
            f"the broker has deleted messages that had not landed: {told}. They are lost here: restore the topic from "
            "where it is copied to, or have the shop send these orders again (known ones are duplicates, no harm), "
            "then go on with `plumb events run --accept-loss`, which says so in the books"
        )
    topic = _topic_id(broker)
    found = objects.read(KEY)
    if booked and found and (known := found.json().get("topic", topic)) != topic:
        raise StreamError(
            f"{topics.ORDERS} was made anew: its id is {topic}, what landed is of {known}, and an offset of the one "
            "says nothing of the other. Point PLUMBLINE_KAFKA_URL at the broker that holds that one"
        )
    starting = {topics.ORDERS: {str(number): at for (_, number), at in starts.items()}}
    return Begin(_checkpoint(topic, anew=moved or bool(lost)), json.dumps(starting), lost)


def explained(error: str) -> str:
    """What Spark said when the query failed, as one sentence."""
    if "Some data may have been lost" in error or "OffsetOutOfRange" in error:
        return (
            "the broker deleted messages while they were waiting to be read, or the topic was made anew: "
            "run `plumb events run` again, it says which"
        )
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return f"the stream ended: {lines[0][:300] if lines else 'without a word'}"


def _topic_id(broker: Broker) -> str:
    """What tells the topic from another one of its name. Raises ServiceUnavailable."""
    from confluent_kafka import KafkaException, TopicCollection

    try:
        client = topics.admin(broker)  # what it was asked goes with it
        asked = client.describe_topics(TopicCollection([topics.ORDERS]), request_timeout=topics.TIMEOUT)
        return str(asked[topics.ORDERS].result(topics.TIMEOUT).topic_id)
    except KafkaException as error:
        raise ServiceUnavailable(f"Kafka at {broker.servers} does not answer: {error.args[0].str()}") from None


def _checkpoint(topic: str, *, anew: bool) -> str:
    """Where Spark keeps the offsets of each batch: beside the tables, a new folder for each beginning."""
    found = objects.read(KEY)
    before = found.json() if found else {}
    state = {"generation": before.get("generation", 1) + anew, "topic": topic}
    if state != before:
        objects.replace_json(KEY, state, if_match=found.etag if found else None)
    return f"{settings().lake_uri}/_order_stream/{state['generation']:04d}"


def _named(place: tuple[str, int]) -> str:
    return f"partition {place[1]} of {place[0]}"
