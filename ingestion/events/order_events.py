"""One message of the topic, read: an order event as its contract has it, or why it is none.

A message is the event itself, a JSON object of the contract's fields with `schema` beside them, or a change of a
Postgres outbox as Debezium writes it, whose row holds that object as `payload`. All that is read of a message is in its
bytes: a second reading, by another process or another engine, gives the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column

DATASET = "orders.events"
SCHEMA = f"{DATASET}/1"
"""What a message says that it is; another major version is another contract."""

LARGEST = 64 << 10
"""Bytes of a message; an event has 150, in Debezium's envelope 2,000."""

LONGEST_ID = 64
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
"""Whether a text has that form; what it says is read by Python, which takes other forms too."""

REASONS = {
    "empty": "no value: a tombstone, which a compacted topic or Debezium behind a deletion leaves",
    "too_large": f"more than {LARGEST:,} bytes",
    "malformed": "no JSON object in UTF-8",
    "other_schema": f"another schema than {SCHEMA}",
    "not_an_order": "a change of the outbox that is no new row",
    "missing_field": "a field that the contract requires is not there or null",
    "wrong_type": "a field of another type than the contract's",
    "out_of_range": "a value outside what the contract takes",
    "other_key": "the message's key is another customer than the event's",
    "from_the_future": "placed later than it came, beyond what clocks differ",
}
"""Why a message goes to the dead letters."""

CLOCKS_DIFFER = timedelta(minutes=5)
FIELDS = ("event_id", "event_time", "order_id", "customer_id", "units", "total_cents")


@dataclass(frozen=True, slots=True)
class Event:
    """An order that was placed; `event_time` aware, UTC."""

    event_id: str
    event_time: datetime
    order_id: int
    customer_id: int
    units: int
    total_cents: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a message is no event: one of REASONS, and which field has which value."""

    reason: str
    detail: str


def read(key: bytes | None, value: bytes | None, appended: datetime) -> Event | DeadLetter:
    """The event in a message that the broker appended at `appended` (aware). Never raises for what a message holds."""
    try:
        return _event(key, value, appended)
    except _Dead as dead:
        return DeadLetter(dead.reason, dead.detail[:500])


class _Dead(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _event(key: bytes | None, value: bytes | None, appended: datetime) -> Event:
    if not value:
        raise _Dead("empty", "no value")
    if len(value) > LARGEST:
        raise _Dead("too_large", f"{len(value):,} bytes, at most {LARGEST:,}")
    fields = _object(value, "the message")
    fields = _of_outbox(fields) if _is_change(fields) else fields
    if (schema := fields.get("schema")) != SCHEMA:
        raise _Dead("other_schema", f"schema is {_shown(schema)}, expected {SCHEMA!r}")
    event = Event(**{name: reader(fields) for name, reader in _readers().items()})
    if key is not None and key != str(event.customer_id).encode():
        raise _Dead("other_key", f"the key is {_shown(key)}, customer_id {event.customer_id}")
    if event.event_time > appended + CLOCKS_DIFFER:
        raise _Dead("from_the_future", f"event_time is {event.event_time}, it came at {appended}")
    return event


def _object(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object. A name that it has twice, a NaN or an endless number are malformed: readers differ about them."""
    try:
        text = text if isinstance(text, str) else text.decode()  # json itself would take UTF-16 and halves of pairs
        found = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise _Dead("malformed", f"{what} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _Dead("malformed", f"{what} is {_shown(found)}, expected an object")
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _is_change(fields: Mapping[str, Any]) -> bool:
    """Whether it is Debezium's envelope, with its schema or without."""
    inner = fields.get("payload", fields)
    return isinstance(inner, dict) and {"op", "source"} <= inner.keys()


def _of_outbox(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a change of an outbox table: `op` c or r, and `after` with the columns id and payload."""
    change = fields.get("payload", fields)
    if change["op"] not in ("c", "r"):
        raise _Dead("not_an_order", f"op is {_shown(change['op'])}, expected c (a new row) or r (one of a snapshot)")
    row = change.get("after")
    if not isinstance(row, dict) or not {"id", "payload"} <= row.keys():
        raise _Dead("missing_field", f"after is {_shown(row)}, expected a row with the columns id and payload")
    held = row["payload"]
    event = _object(held, "the outbox's payload") if isinstance(held, str) else held
    if not isinstance(event, dict):
        raise _Dead("wrong_type", f"payload is {_shown(held)}, expected a JSON object")
    event = {"event_id": row["id"], **event}
    if event["event_id"] != row["id"]:
        raise _Dead("out_of_range", f"event_id is {_shown(event['event_id'])}, the outbox's id {_shown(row['id'])}")
    return event


@cache
def _readers() -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """For each field of the contract what reads it from a message's fields."""
    columns = contracts.load(DATASET).columns
    kinds = {"string": _text, "timestamp": _instant, "bigint": _whole}
    return {name: _reader(columns[name], kinds[columns[name].type]) for name in FIELDS}


def _reader(column: Column, kind: Callable[[Column, Any], Any]) -> Callable[[Mapping[str, Any]], Any]:
    def value(fields: Mapping[str, Any]) -> Any:
        given = fields.get(column.name)
        if given is None:
            raise _Dead("missing_field", f"{column.name} is {'null' if column.name in fields else 'not there'}")
        made = kind(column, given)
        low, high = column.limits.low, column.limits.high
        if (low is not None and made < low) or (high is not None and made > high):
            raise _Dead("out_of_range", f"{column.name} is {_shown(given)}, expected {low} to {high}")
        return made

    return value


def _text(column: Column, given: Any) -> str:
    if not isinstance(given, str):
        raise _Dead("wrong_type", f"{column.name} is {_shown(given)}, expected a string")
    if not 0 < len(given) <= LONGEST_ID or not given.isprintable():
        raise _Dead(
            "out_of_range", f"{column.name} is {_shown(given)}, expected 1 to {LONGEST_ID} printable characters"
        )
    return given


def _whole(column: Column, given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise _Dead("wrong_type", f"{column.name} is {_shown(given)}, expected a whole number")
    if not -(2**63) <= given < 2**63:
        raise _Dead("out_of_range", f"{column.name} is {_shown(given)}, expected a number of 64 bits")
    return given


def _instant(column: Column, given: Any) -> datetime:
    """An instant as RFC 3339 has it, to the microsecond: what is finer is cut off. Without a zone it is none."""
    expected = "expected an instant as in 1997-10-07T14:03:22Z"
    if not isinstance(given, str):
        raise _Dead("wrong_type", f"{column.name} is {_shown(given)}, {expected}")
    try:
        return datetime.fromisoformat(given).astimezone(UTC) if RFC_3339(given) else _refuse(column, given, expected)
    except (ValueError, OverflowError):
        return _refuse(column, given, expected)


def _refuse(column: Column, given: Any, expected: str) -> datetime:
    raise _Dead("wrong_type", f"{column.name} is {_shown(given)}, {expected}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
