"""A message is an event of the contract or a dead letter with its reason; Debezium's changes of an outbox too."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.events import order_events
from ingestion.events.order_events import REASONS, SCHEMA, DeadLetter, Event

CAME = datetime(1997, 10, 7, 14, 3, 30, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "schema": SCHEMA, "event_id": "e-1", "event_time": "1997-10-07T14:03:22.5Z", "order_id": 17, "customer_id": 5,
    "units": 2, "total_cents": 2999,
}  # fmt: skip
EVENT = Event("e-1", datetime(1997, 10, 7, 14, 3, 22, 500_000, tzinfo=UTC), 17, 5, 2, 2999)


def read(value: Any, key: bytes | None = b"5") -> Event | DeadLetter:
    content = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return order_events.read(key, content, CAME)


def change(row: Any, op: str = "c") -> dict[str, Any]:
    return {
        "before": None,
        "after": row,
        "source": {"connector": "postgresql", "table": "outbox"},
        "op": op,
        "ts_ms": 1,
    }


def test_an_event_is_read_as_it_was_sent() -> None:
    assert read(FIELDS) == EVENT
    assert read(FIELDS, key=None) == EVENT
    assert read({**FIELDS, "event_time": "1997-10-07T16:03:22.5+02:00"}) == EVENT
    assert read({**FIELDS, "event_time": "1997-10-07T14:03:22.500000999Z"}) == EVENT, "what is finer is cut off"
    assert read({**FIELDS, "channel": "web"}) == EVENT, "a field that the contract does not know changes nothing"


def test_a_new_row_of_an_outbox_is_the_event_that_it_holds() -> None:
    body = {name: value for name, value in FIELDS.items() if name != "event_id"}
    row = {"id": "e-1", "aggregatetype": "order", "aggregateid": "17", "type": "placed", "payload": json.dumps(body)}
    assert read(change(row)) == EVENT
    assert read({"schema": {"type": "struct"}, "payload": change(row, "r")}) == EVENT
    assert read(change({**row, "payload": body})) == EVENT, "a jsonb column that the converter expanded"
    assert read(change({**row, "payload": json.dumps({**body, "event_id": "e-1"})})) == EVENT
    other = read(change({**row, "payload": json.dumps({**body, "event_id": "e-2"})}))
    assert other == DeadLetter("out_of_range", "event_id is 'e-2', the outbox's id 'e-1'")
    for op in ("u", "d", "t"):
        dead = read(change(None if op == "d" else row, op))
        assert isinstance(dead, DeadLetter) and dead.reason == "not_an_order" and repr(op) in dead.detail
    assert read(change({"id": "e-1"})).reason == "missing_field"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [
        (None, "empty", "no value"),
        (b"", "empty", "no value"),
        (b"x" * 70_000, "too_large", "70,000 bytes, at most 65,536"),
        (b"\xff\xfe", "malformed", "the message is no JSON"),
        (json.dumps(FIELDS).encode("utf-16"), "malformed", "the message is no JSON: 'utf-8' codec can't decode"),
        (b"{", "malformed", "the message is no JSON"),
        (b'["a"]', "malformed", "the message is ['a'], expected an object"),
        (b'{"units": NaN}', "malformed", "NaN is no number of JSON"),
        (b'{"units": 1, "units": 2}', "malformed", "a name stands in it twice"),
        (b"[" * 60_000, "malformed", "the message is no JSON"),
        ({**FIELDS, "schema": "orders.events/2"}, "other_schema", "schema is 'orders.events/2', expected"),
        ({"event_id": "e-1"}, "other_schema", "schema is None"),
        ({**FIELDS, "units": None}, "missing_field", "units is null"),
        ({name: FIELDS[name] for name in FIELDS if name != "order_id"}, "missing_field", "order_id is not there"),
        ({**FIELDS, "units": "2"}, "wrong_type", "units is '2', expected a whole number"),
        ({**FIELDS, "units": 2.0}, "wrong_type", "units is 2.0, expected a whole number"),
        ({**FIELDS, "units": True}, "wrong_type", "units is True, expected a whole number"),
        ({**FIELDS, "event_id": 7}, "wrong_type", "event_id is 7, expected a string"),
        ({**FIELDS, "event_time": "1997-10-07 14:03:22"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": "1997-10-07T14:03:22"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": "19971007T140322Z"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": "1997-W41-2T14:03:22Z"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": "1997-10-07T14Z"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": "1997-10-07T14:03:60Z"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "event_time": 876_232_000}, "wrong_type", "event_time is 876232000"),
        ({**FIELDS, "event_time": "0001-01-01T00:00:00+23:00"}, "wrong_type", "expected an instant as in"),
        ({**FIELDS, "units": 0}, "out_of_range", "units is 0, expected 1 to 1000000"),
        ({**FIELDS, "total_cents": -1}, "out_of_range", "total_cents is -1"),
        ({**FIELDS, "order_id": 2**63}, "out_of_range", "expected a number of 64 bits"),
        ({**FIELDS, "event_time": "1996-12-31T23:59:59Z"}, "out_of_range", "event_time is '1996-12-31T23:59:59Z'"),
        ({**FIELDS, "event_id": ""}, "out_of_range", "expected 1 to 64 printable characters"),
        ({**FIELDS, "event_id": "a\n"}, "out_of_range", "expected 1 to 64 printable characters"),
        ({**FIELDS, "customer_id": 6}, "other_key", "the key is b'5', customer_id 6"),
        ({**FIELDS, "event_time": "1997-10-07T14:09:00Z"}, "from_the_future", "it came at 1997-10-07 14:03:30"),
    ],
)
def test_what_is_no_event_has_its_reason_and_names_field_and_value(value: Any, reason: str, told: str) -> None:
    dead = read(value)
    assert isinstance(dead, DeadLetter) and reason in REASONS
    assert (dead.reason, told in dead.detail) == (reason, True), dead


NAMES = st.sampled_from([*FIELDS, "op", "source", "after", "payload", "id"])
PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12)


@settings(deadline=None)  # a machine that is busy is no finding
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_message_is_without_an_answer(value: bytes) -> None:
    found = order_events.read(b"5", value, CAME)
    assert isinstance(found, Event) or found.reason in REASONS


@settings(deadline=None)
@given(
    st.fixed_dictionaries({name: st.sampled_from([FIELDS[name], None, "x", 1, 1.5, [], {}, 2**70]) for name in FIELDS})
)
def test_an_event_is_all_right_or_nothing(fields: dict[str, Any]) -> None:
    found = read(fields)
    assert isinstance(found, DeadLetter) or (found.event_id, found.units) == (fields["event_id"], fields["units"])
