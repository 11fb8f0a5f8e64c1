"""The shop's orders of some days as events at a stated rate, keyed by customer; with faults on request.

The orders are the shop's own; CDNOW knows the day of an order and no more, so the second within the day is made up, by
the order's number. An event's id is the order's, so whoever sends a day twice sends duplicates, and no new event.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ingestion.database import source
from ingestion.events import topics
from ingestion.events.order_events import SCHEMA
from plumbline import clock, files
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.servers.kafka import Broker

DAY_SECONDS = 86_400
FLUSHED_WITHIN = 30.0
LARGEST_SENT = 16 << 20
"""Bytes of a message that the client does not refuse itself: the topic's own limit decides."""

SECONDS_BETWEEN_LINES = 3.0
HELD_BACK = 200
"""Messages that overtake a late one."""


class ProduceError(PlumblineError):
    """There is nothing to send, or the broker did not take it."""


@dataclass(frozen=True)
class Faults:
    """Shares of the events, 0 to 1, that get a fault. Malformed and wrong-typed messages come beside the right ones."""

    duplicates: float = 0.0
    late: float = 0.0
    out_of_order: float = 0.0
    malformed: float = 0.0
    wrong_typed: float = 0.0
    seed: int = 7

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name != "seed" and not 0 <= getattr(self, one.name) <= 1:
                raise ProduceError(f"{one.name} is {getattr(self, one.name)}, expected a share from 0 to 1")


@dataclass
class Sent:
    """What went out: messages by kind, and how many the broker has of each partition."""

    events: int = 0
    duplicates: int = 0
    late: int = 0
    out_of_order: int = 0
    malformed: int = 0
    wrong_typed: int = 0
    partitions: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def messages(self) -> int:
        """All that went out."""
        return self.events + self.duplicates + self.malformed + self.wrong_typed


Message = tuple[bytes, bytes]
"""Key and value."""


def event(order: dict[str, Any], at: datetime | None = None) -> Message:
    """An order as a message. `at` is when it was placed; default: a second of its day, by its number."""
    when = at or second_of(order["order_id"], order["order_date"])
    body = {
        "schema": SCHEMA,
        "event_id": f"order-{order['order_id']}",
        "event_time": when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        **{name: order[name] for name in ("order_id", "customer_id", "units", "total_cents")},
    }
    return str(order["customer_id"]).encode(), json.dumps(body, separators=(",", ":")).encode()


def second_of(order: int, day: date) -> datetime:
    """The made-up instant of an order within its day (UTC): the same each time."""
    place = int(files.sha256(str(order).encode())[:12], 16)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=place % DAY_SECONDS)


def orders(first: date, last: date) -> list[dict[str, Any]]:
    """The shop's orders of these days, in the order of their instants. Raises ProduceError when there are none."""
    import sqlalchemy as sa

    from products.churn import CHURN

    table = source.schema(CHURN).tables["orders"]
    with source.connected(source.engine()) as connection:
        asked = sa.select(table).where(table.c.order_date.between(first, last))
        rows = [dict(row) for row in connection.execute(asked).mappings()]
    if not rows:
        raise ProduceError(f"the shop has no orders from {first} to {last}: `plumb demo` loads CDNOW's")
    return sorted(rows, key=lambda row: (second_of(row["order_id"], row["order_date"]), row["order_id"]))


def messages(events: Iterator[Message], faults: Faults, sent: Sent) -> Iterator[Message]:
    """The events with their faults, counted in `sent`: the same for the same seed."""
    chance, held = random.Random(faults.seed), deque[tuple[int, Message]]()  # noqa: S311
    before: Message | None = None
    for number, one in enumerate(events):
        while held and held[0][0] <= number:
            yield held.popleft()[1]
        sent.events += 1
        if chance.random() < faults.malformed:
            sent.malformed += 1
            yield one[0], one[1][: len(one[1]) // 2]
        if chance.random() < faults.wrong_typed:
            sent.wrong_typed += 1
            yield one[0], json.dumps({**json.loads(one[1]), "units": "two"}).encode()
        if chance.random() < faults.late:
            sent.late += 1
            held.append((number + HELD_BACK, one))
            continue
        if before is None and chance.random() < faults.out_of_order:
            before = one  # goes out behind the next one
            continue
        yield one
        if before is not None:
            sent.out_of_order += 1
            yield before
            before = None
        if chance.random() < faults.duplicates:
            sent.duplicates += 1
            yield one
    yield from ([before] if before is not None else [])
    yield from (one for _, one in held)


def produce(broker: Broker, given: Iterator[Message], rate: float, sent: Sent) -> Sent:
    """Sends messages, `rate` a second at most (0: as fast as the broker takes them); returns when it has them all.

    Raises ProduceError when the broker did not take one, with how many it has: sending again is safe.
    """
    from confluent_kafka import KafkaException, Producer

    refused: list[str] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            refused.append(str(error))
        else:
            sent.partitions[message.partition()] = sent.partitions.get(message.partition(), 0) + 1

    options = {"enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4", "log_level": 0}
    options["message.max.bytes"] = LARGEST_SENT
    client = Producer({**broker.client(), **options, "message.timeout.ms": int(1000 * FLUSHED_WITHIN)})
    begun = said = clock.monotonic()
    count = 0
    for key, value in given:
        if rate and (early := begun + count / rate - clock.monotonic()) > 0.001:
            client.poll(0)
            time.sleep(early)
        while True:
            try:
                client.produce(topics.ORDERS, value=value, key=key, on_delivery=delivered)
                break
            except BufferError:
                client.poll(0.05)
            except KafkaException as error:
                raise ProduceError(f"message {count + 1} cannot be sent: {error}") from None
        count += 1
        if count % 500 == 0:
            client.poll(0)
        if (now := clock.monotonic()) - said > SECONDS_BETWEEN_LINES:
            say(f"sent {count:,} messages, {count / (now - begun):,.0f}/s")
            said = now
        if refused:
            break
    left = client.flush(FLUSHED_WITHIN)
    sent.seconds = clock.monotonic() - begun
    if refused or left:
        has = sum(sent.partitions.values())
        why = refused[0] if refused else f"no answer within {FLUSHED_WITHIN:.0f} s"
        raise ProduceError(
            f"the broker has {has:,} of {count:,} messages: {why}; the same again sends duplicates alone"
        )
    return sent


def days(broker: Broker, first: date, last: date, rate: float, faults: Faults) -> Sent:
    """Sends the shop's orders of these days. Raises ProduceError, ServiceUnavailable."""
    found = orders(first, last)
    topics.ensure(broker)
    say(f"{len(found):,} orders of {first} to {last} to {topics.ORDERS}" + (f", {rate:,.0f} a second" if rate else ""))
    sent = Sent()
    return produce(broker, messages((event(order) for order in found), faults, sent), rate, sent)
