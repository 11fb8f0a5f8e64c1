"""Where the job begins to read: where its checkpoint is, unless that is gone or an operator moved the consumer group.

A topic that was deleted and made anew counts its offsets from 0 again. So its rows and books have another name of the
topic, `shop.orders#2`, and no two messages have one place.

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
from plumbline.progress import say, warn
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
    """Where the query's checkpoint is, the topic's name in the tables, from which offset each partition is read, and
    what was accepted as lost: of a partition the offsets from, and up to, not with."""

    checkpoint: str
    topic: str
    starts: Mapping[int, int]
    lost: Mapping[tuple[str, int], tuple[int, int]]

    @property
    def starting(self) -> str:
        """The starts as Spark's JSON, for a checkpoint that is new."""
        return json.dumps({topics.ORDERS: {str(number): at for number, at in self.starts.items()}})

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The starts by the topic's name in the tables, and partition."""
        return {(self.topic, number): at for number, at in self.starts.items()}


@dataclass(frozen=True)
class Partition:
    """What the broker says of a partition: its first offset and the one behind its last, and what the group has."""

    first: int
    end: int
    committed: int | None
    ours: bool


def partitions(broker: Broker) -> dict[int, Partition]:
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
            found[one.partition] = Partition(first, end, has, one.metadata == OURS)
        return found


@contextmanager
def _group(broker: Broker) -> Iterator[Consumer]:
    """A member of the job's group. Raises ServiceUnavailable for what the broker does not answer meanwhile, and
    SettingsError for a login that it refuses."""
    from confluent_kafka import Consumer, KafkaException

    options = {"group.id": GROUP, "enable.auto.commit": False, "log_level": 0}
    options["isolation.level"] = "read_uncommitted"  # a partition's end is its high watermark, as kafka_exporter has it
    consumer = Consumer({**broker.client(), **options})
    try:
        yield consumer
    except KafkaException as error:
        raise kafka.failure(broker, error.args[0]) from None
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


def commit(broker: Broker, positions: Mapping[int, int]) -> None:
    """Says at the broker how far the job is, by partition. Raises ServiceUnavailable."""
    from confluent_kafka import TopicPartition

    given = [TopicPartition(topics.ORDERS, number, at, OURS) for number, at in sorted(positions.items())]
    with _group(broker) as consumer:
        consumer.commit(offsets=given, asynchronous=False)


def begin(
    broker: Broker,
    booked: Mapping[tuple[str, int], int],
    *,
    accept_loss: bool = False,
    accept_new_topic: bool = False,
) -> Begin:
    """Where to begin, given up to where the books say that all has landed. An operator's move back is followed.

    A partition that was never held begins at its first offset, or where an operator put the group. Where it began is
    remembered: only what the broker deleted behind a position that was held is lost.

    Raises StreamError when such messages are gone (`accept_loss` goes on behind them, and the books say so), when the
    group was moved forward, or the topic is another one than was read (`accept_new_topic` reads it from its start).
    """
    found = objects.read(KEY)
    before: dict[str, Any] = found.json() if found else {}
    at_broker, topic_id = partitions(broker), _topic_id(broker)
    landed, began = _of_topic(booked, _in_tables(before)), before.get("began", {})
    made_anew = _made_anew(before.get("topic", topic_id), topic_id, at_broker, landed)
    if made_anew:
        if booked and not accept_new_topic:
            raise StreamError(made_anew)
        landed, began = {}, {}
    state = {"generation": before.get("generation", 1), "topic": topic_id}
    state["life"] = before.get("life", 1) + bool(made_anew)
    anew, starts, lost = bool(made_anew), dict[int, int](), dict[int, tuple[int, int]]()
    for number, partition in at_broker.items():
        by_hand = None if partition.ours else partition.committed
        held = landed.get(number, began.get(str(number)) if by_hand is None else by_hand)
        starts[number] = max(partition.first, held or 0)
        if held is None and partition.first:
            say(f"{_named(number)} begins at offset {partition.first:,}: the broker has none before it")
        if held is not None and held < partition.first:
            lost[number] = (held, partition.first)
        if number not in landed:
            anew |= bool(before) and starts[number] != began.get(str(number), 0)
        elif by_hand is not None and by_hand != landed[number]:
            starts[number], anew = max(partition.first, _moved_back(number, by_hand, landed[number])), True
    if lost and not accept_loss:
        told = "; ".join(f"{_named(number)}: {a:,} to {b - 1:,} ({b - a:,})" for number, (a, b) in lost.items())
        raise StreamError(
            f"the broker has deleted messages that had not landed: {told}. They are lost here: restore the topic from "
            "where it is copied to, or have the shop send these orders again (known ones are duplicates, no harm), "
            "then go on with `plumb events run --accept-loss`, which says so in the books"
        )
    state["generation"] += anew or bool(lost)
    state["began"] = {str(number): at for number, at in starts.items() if number not in landed}
    if state != before:
        objects.replace_json(KEY, state, if_match=found.etag if found else None)
    name = _in_tables(state)
    checkpoint = f"{settings().lake_uri}/_order_stream/{state['generation']:04d}"
    return Begin(checkpoint, name, starts, {(name, number): gone for number, gone in lost.items()})


def followed(broker: Broker, booked: Mapping[tuple[str, int], int]) -> tuple[str, dict[int, int]]:
    """The name in the tables of the topic that the job reads, and by partition how far it is.

    Raises StreamError when the broker's topic is another one, ServiceUnavailable.
    """
    found = objects.read(KEY)
    before = found.json() if found else {}
    topic_id = _topic_id(broker)
    if booked and (told := _made_anew(before.get("topic", topic_id), topic_id, {}, {})):
        raise StreamError(told)
    return _in_tables(before), _of_topic(booked, _in_tables(before))


def _in_tables(state: Mapping[str, Any]) -> str:
    """The topic's name in the tables: one of its own each time that it was made anew. Kafka gives no topic a `#`."""
    life = state.get("life", 1)
    return topics.ORDERS if life == 1 else f"{topics.ORDERS}#{life}"


def _of_topic(booked: Mapping[tuple[str, int], int], name: str) -> dict[int, int]:
    return {number: at for (topic, number), at in booked.items() if topic == name}


def _made_anew(known: str, topic_id: str, at_broker: Mapping[int, Partition], landed: Mapping[int, int]) -> str:
    """Why the topic is another one than was read, and what to do; nothing if it is the same."""
    told = [f"its id is {topic_id}, what landed is of {known}"] if known != topic_id else []
    if not told and at_broker:
        ends = {number: at_broker[number].end if number in at_broker else 0 for number in landed}
        told = [
            f"{_named(number)} ends at offset {end:,}, but {landed[number]:,} messages of it have landed"
            for number, end in ends.items()
            if end < landed[number]
        ]
    if not told:
        return ""
    return (
        f"{topics.ORDERS} was made anew: {told[0]}, and an offset of the one says nothing of the other. Point "
        "PLUMBLINE_KAFKA_URL at the broker that holds the one that was read. If that is gone for good: `plumb events "
        "run --accept-new-topic` reads the new one from its start, and what landed before is a duplicate"
    )


def _moved_back(number: int, by_hand: int, landed: int) -> int:
    """Where an operator put the group. Raises StreamError if messages in between have not landed."""
    if by_hand > landed:
        raise StreamError(
            f"{_named(number)}: somebody moved the consumer group {GROUP} forward to {by_hand:,}, past "
            f"{by_hand - landed:,} messages that have not landed. Move it back to {landed:,} at most, with "
            "kafka-consumer-groups.sh --reset-offsets"
        )
    warn(f"{_named(number)}: the group was moved back to {by_hand:,}: reading from there again")
    return by_hand


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
        return str(asked[topics.ORDERS].result(2 * topics.TIMEOUT).topic_id)
    except KafkaException as error:
        raise kafka.failure(broker, error.args[0]) from None


def _named(number: int) -> str:
    return f"partition {number} of {topics.ORDERS}"
