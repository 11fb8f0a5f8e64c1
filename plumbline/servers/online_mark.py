"""The mark in Redis that says which release is online, and whose rows it brought: `product.online_mark`, one hash.

Beside `release_id` and `event_time` it has a field for each row's key, so that a row that Redis lost is told from a
customer whom nobody knows. It is one key: evicted or deleted, it is gone as a whole, and then no release is online.
A mark without `rows` is from before keys were written: it knows nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from plumbline.product import Product

if TYPE_CHECKING:
    import redis

BATCH = 5_000
"""Fields or keys in one command."""


def write(client: redis.Redis, product: Product, release_id: int, until: datetime, row_keys: Sequence[bytes]) -> None:
    """Says that a release is online until `until`, with these rows and no others. Readers see all of it or nothing."""
    coming: Any = f"{product.online_mark}:coming"
    client.delete(coming)
    for keys in batches(row_keys):
        client.hset(coming, mapping=dict.fromkeys(keys, ""))
    about = {"release_id": release_id, "event_time": until.isoformat(), "rows": len(row_keys)}
    client.hset(coming, mapping=about)
    client.rename(coming, product.online_mark)


def knows(client: redis.Redis, product: Product, row_keys: Sequence[bytes]) -> list[bool] | None:
    """For each row's key, whether the release that is online brought it; None while no release is online."""
    from redis.exceptions import ResponseError

    try:
        fields: Any = client.hmget(product.online_mark, [b"release_id", *row_keys])
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return None  # whatever lies there, it is no mark
    release_id, *members = fields
    return None if release_id is None else [member is not None for member in members]


def batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Keys in parts that one command takes."""
    rest = iter(keys)
    while batch := list(islice(rest, BATCH)):
        yield batch
