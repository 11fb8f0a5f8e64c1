"""What is read thousands at a time is, message by message, what the reader of one message makes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestion.events import landing, order_events, produce, usual_form
from ingestion.events.order_events import FIELDS, SCHEMA, DeadLetter

CAME = datetime(1997, 10, 7, 14, 3, 30, tzinfo=UTC)
MESSAGE: dict[str, Any] = {
    "schema": SCHEMA, "event_id": "e-1", "event_time": "1997-10-07T14:03:22.5Z", "order_id": 17, "customer_id": 5,
    "units": 2, "total_cents": 2999,
}  # fmt: skip

texts = st.sampled_from(["e-1", "", "a b", "x" * 64, "x" * 65, 'q"', "b\\", "é", "\x7f", "\n", " "]) | st.text(
    max_size=5
)
times = st.sampled_from(
    [
        "1997-10-07T14:03:22Z", "1997-10-07T14:03:22.1Z", "1997-10-07T14:03:22.123456Z", "1997-10-07T14:03:22.1234567Z",
        "1996-02-29T00:00:00Z", "1997-02-29T00:00:00Z", "1997-04-31T00:00:00Z", "1997-10-07T24:00:00Z",
        "1997-10-07T14:03:60Z", "1997-10-07T14:08:30Z", "1997-10-07T14:08:30.000001Z", "0000-01-01T00:00:00Z",
        "1997-10-07 14:03:22Z", "1997-10-07T14:03:22+00:00", "1997-10-07T14:03:22", "2097-10-07T14:03:22Z", "1997-10-7",
    ]
) | st.datetimes(datetime(1995, 1, 1), CAME.replace(tzinfo=None)).map(lambda time: f"{time.isoformat()}Z")  # fmt: skip
numbers = st.sampled_from([0, 1, -1, 10**17, 10**18, 2**63 - 1, 2**63, -(2**63), True, 1.0, "1", None]) | st.integers(
    0, 999
)
others: Any = st.none() | st.just([]) | st.just(SCHEMA + "0")
messages = st.fixed_dictionaries(
    {
        "schema": st.just(SCHEMA) | others,
        "event_id": texts | others,
        "event_time": times | others,
        **dict.fromkeys(("order_id", "customer_id", "units", "total_cents"), numbers | others),
    },
    optional={"channel": st.just("web")},
)
written = st.sampled_from([(",", ":"), (", ", ": "), (" ,", ":"), (",  ", ":")])
spoilt = st.sampled_from(
    [lambda text: text] * 4 + [lambda text: text[:-1], lambda text: text + b" ", lambda text: b" " + text]
)


def usual(value: dict[str, Any], order: list[str], separators: tuple[str, str] = (",", ":")) -> bytes:
    return json.dumps({name: value[name] for name in order if name in value}, separators=separators).encode()


def batch(values: list[bytes | None], keys: list[bytes | None]) -> pa.RecordBatch:
    count = len(values)
    return pa.RecordBatch.from_pydict(
        {
            "topic": pa.array(["t"] * count),
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(count), pa.int64()),
            "key": pa.array(keys, pa.binary()),
            "value": pa.array(values, pa.binary()),
            "timestamp": pa.array([CAME] * count, pa.timestamp("us", "UTC")),
        }
    )


def one_by_one(values: list[bytes | None], keys: list[bytes | None]) -> list[dict[str, Any]]:
    read = [order_events.read(key, value, CAME) for key, value in zip(keys, values, strict=True)]
    return [{name: getattr(one, name, None) for name in (*FIELDS, "reason", "detail")} for one in read]


@given(
    st.lists(st.tuples(messages, written, spoilt, st.sampled_from([None, b"5", b"0", b"-0"])), min_size=1, max_size=12),
    st.permutations(["schema", *FIELDS, "channel"]),
)
@example([(MESSAGE, (",", ":"), lambda text: text, b"5")], ["schema", *FIELDS])
def test_whatever_the_messages_are_they_are_read_as_one_by_one(given: list[Any], order: list[str]) -> None:
    values = [spoil(usual({**MESSAGE, **value}, order, how)) for value, how, spoil, _ in given]
    values.append(usual(MESSAGE, order))
    keys = [key for *_, key in given] + [b"5"]
    found = pa.Table.from_batches(list(landing.parse(iter([batch(values, keys)])))).sort_by("offset").to_pylist()
    wanted = one_by_one(values, keys)
    assert [{name: row[name] for name in wanted[0]} for row in found] == wanted
    assert [row["value"] for row in found] == values


def test_what_the_shop_sends_is_read_in_its_usual_form_and_nothing_else_is() -> None:
    orders = [{"order_id": n, "customer_id": n % 7, "units": 1 + n % 3, "total_cents": 10 * n} for n in range(1, 200)]
    sent = [produce.event(order, CAME - timedelta(seconds=n, microseconds=n)) for n, order in enumerate(orders)]
    keys, values = map(list, zip(*sent, strict=True))
    events, taken = usual_form.split(batch(values, keys))
    assert taken.to_pylist() == [True] * len(sent)
    assert pa.table(events).to_pylist() == [{name: row[name] for name in FIELDS} for row in one_by_one(values, keys)]
    for bad in (None, b"", b"{}", b"[1]", b'{"schema": 1', json.dumps({**MESSAGE, "units": 0}).encode()):
        assert usual_form.split(batch([bad], [None]))[1].to_pylist() == [False]
        assert isinstance(order_events.read(None, bad, CAME), DeadLetter)


@pytest.mark.parametrize("values", [[], [None], [b"x" * 100_000]])
def test_a_batch_without_an_event_is_read_too(values: list[bytes | None]) -> None:
    keys: list[bytes | None] = [None] * len(values)
    found = list(landing.parse(iter([batch(values, keys)])))
    assert sum(one.num_rows for one in found) == len(values)
