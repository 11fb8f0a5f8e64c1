"""Messages in their usual form, thousands at a time: a flat JSON object of the contract's fields, always in one order.

That is how one producer writes them. What is read here is what `order_events.read` makes of each such message, by an
expression that takes fewer of them and Arrow's casts instead of a parser. All else, from an escape in a string to a
value that the contract does not take, is left to that reader, which also says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from ingestion.events import order_events
from ingestion.events.order_events import CLOCKS_DIFFER, DATASET, FIELDS, LONGEST_ID, SCHEMA
from plumbline.contracts import contract as contracts

if TYPE_CHECKING:
    import pyarrow as pa

_DAY = (
    r"(?:19|20)[0-9]{2}-"
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
"""The days that each year has: 29 February is for the other reader."""

_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_WHOLE = r"(0|-?[1-9][0-9]{0,17})"
_VALUES = {
    "schema": f'"{re.escape(SCHEMA)}"',
    "event_id": rf'"([ !#-\[\]-~]{{1,{LONGEST_ID}}})"',
    "event_time": f'"({_DAY}T{_TIME}Z)"',
}
_TRIED = 20
"""Messages of a batch that are looked at for the order of its fields."""


def split(batch: pa.RecordBatch) -> tuple[dict[str, pa.Array], pa.Array]:
    """Of a batch with Kafka's columns key, value, timestamp: the events in their usual form, by FIELDS, and for each
    message whether it is one of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = batch["value"].to_pylist()
    order = _order(values)
    if order is None:
        return {}, pa.array([False] * len(values), pa.bool_())
    match = _reader(order)
    matches = [match(value) if value else None for value in values]
    found = [one.groups() for one in matches if one]
    names = [name for name in order if name != "schema"]
    texts = dict(zip(names, map(_texts, zip(*found, strict=True)), strict=True))
    kinds = {"event_id": pa.string(), "event_time": pa.timestamp("us", "UTC")}
    events = {name: texts[name].cast(kinds.get(name, pa.int64())) for name in FIELDS}
    usual = pa.array([one is not None for one in matches], pa.bool_())
    keys, appended = (batch[name].filter(usual) for name in ("key", "timestamp"))
    own = pc.fill_null(pc.equal(keys, texts["customer_id"].cast(keys.type)), True)
    ahead = pc.add(appended.cast(kinds["event_time"]), pa.scalar(CLOCKS_DIFFER))
    taken = pc.and_(own, pc.less_equal(events["event_time"], ahead))
    for name in FIELDS:
        limits = contracts.load(DATASET).columns[name].limits
        if limits.low is not None:
            taken = pc.and_(taken, pc.greater_equal(events[name], pa.scalar(limits.low)))
        if limits.high is not None:
            taken = pc.and_(taken, pc.less_equal(events[name], pa.scalar(limits.high)))
    return {name: values.filter(taken) for name, values in events.items()}, pc.replace_with_mask(usual, usual, taken)


def _texts(values: Iterable[bytes]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.binary()).cast(pa.string())


def _order(values: list[bytes | None]) -> tuple[str, ...] | None:
    """The order of the fields in a batch: that of the first message which is an object of them and no others."""
    for value in values[:_TRIED]:
        if value is None or len(value) > order_events.LARGEST:
            continue
        try:
            fields = json.loads(value)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and fields.keys() == {"schema", *FIELDS}:
            return tuple(fields)
    return None


@cache
def _reader(order: tuple[str, ...]) -> Callable[[bytes], re.Match[bytes] | None]:
    """What reads a message whose fields come in this order, with a space behind `:` and `,` or none."""
    fields = ", ?".join(f'"{name}": ?{_VALUES.get(name, _WHOLE)}' for name in order)
    return re.compile(rf"\{{{fields}\}}".encode()).fullmatch
