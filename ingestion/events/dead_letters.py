"""Dead letters: what the table holds of them, the topic that they go to as well, sending them again after a mend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from ingestion.events import produce, topics
from ingestion.events.order_events import LARGEST
from ingestion.events.stream_tables import DEAD, StreamError
from plumbline.lake import tables as lake
from plumbline.servers.kafka import Broker

if TYPE_CHECKING:
    import pyarrow as pa

SENT_WITHIN = 30.0


class Sender:
    """Sends a batch's dead letters to their topic. Done again after a kill, the same messages come again: their key,
    topic/partition/offset, tells. Of one that is too large its beginning: with its headers the topic may not take it,
    and the table has it whole."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client: Any = None

    def send(self, batch: str) -> int:
        """The number sent, read in the table. Raises StreamError when the broker does not take them."""
        from confluent_kafka import Producer

        if self._client is None:
            self._client = Producer({**self._broker.client(), "enable.idempotence": True, "log_level": 0})
        refused: list[str] = []
        count = 0
        for row in _rows(batch=batch):
            headers = {name: str(row[name]).encode() for name in ("reason", "detail", "topic", "partition", "offset")}
            while True:
                try:
                    self._client.produce(
                        topics.DEAD_LETTERS,
                        value=row["value"] and row["value"][:LARGEST],
                        key=_place(row).encode(),
                        headers=list(headers.items()),
                        on_delivery=lambda error, _: refused.append(str(error)) if error else None,
                    )
                    break
                except BufferError:
                    self._client.poll(0.05)
            count += 1
        if self._client.flush(SENT_WITHIN) or refused:
            why = refused[0] if refused else f"no answer within {SENT_WITHIN:.0f} s"
            raise StreamError(f"Kafka does not take dead letters into {topics.DEAD_LETTERS}: {why}")
        return count


def listed(since: date | None = None, reason: str | None = None, most: int = 20) -> list[dict[str, Any]]:
    """The newest dead letters, at most so many: topic, partition, offset, reason, detail, known_at, key, value (the
    first 200 bytes as text)."""
    import pyarrow.compute as pc

    found = _table(since, reason)
    rows = found.take(pc.sort_indices(found, [("known_at", "descending"), ("offset", "descending")]))[:most].to_pylist()
    return [{**row, "key": _text(row["key"]), "value": _text(row["value"])} for row in rows]


def counted(since: date | None = None) -> dict[str, int]:
    """How many there are, by reason."""
    found = _table(since, None).group_by("reason").aggregate([("offset", "count")]).to_pylist()
    return {row["reason"]: row["offset_count"] for row in sorted(found, key=lambda row: -row["offset_count"])}


def replay(broker: Broker, since: date | None = None, reason: str | None = None) -> int:
    """Sends the messages of dead letters to the topic of orders again, as they were; how many.

    Sent twice they land once: an event by its id, and what is bad still is a dead letter again, of a new offset. Of
    those that say the same with the same key one is sent, so that what is sent again and again does not multiply.
    Raises StreamError when there are none.
    """
    rows = _table(since, reason).to_pylist()
    given = dict.fromkeys((row["key"], row["value"]) for row in rows if row["value"] is not None)
    if not given:
        raise StreamError("there are no dead letters to send again")
    produce.produce(broker, iter(given), 0, produce.Sent())
    return len(given)


def _table(since: date | None, reason: str | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["topic", "partition", "offset", "reason", "detail", "known_at", "key", "value"]
    if lake.version(DEAD) is None:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    wanted = pc.scalar(True)
    if since is not None:
        wanted &= pc.field("known_date") >= since
    if reason is not None:
        wanted &= pc.field("reason") == reason
    return lake.opened(DEAD).to_pyarrow_dataset().to_table(columns=columns, filter=wanted)


def _rows(batch: str) -> Iterator[dict[str, Any]]:
    import pyarrow.compute as pc

    found = lake.opened(DEAD).to_pyarrow_dataset()
    for part in found.to_batches(filter=pc.field("batch") == batch):
        yield from part.to_pylist()


def _place(row: dict[str, Any]) -> str:
    return f"{row['topic']}/{row['partition']}/{row['offset']}"


def _text(content: bytes | None) -> str | None:
    return None if content is None else content[:200].decode(errors="replace")
