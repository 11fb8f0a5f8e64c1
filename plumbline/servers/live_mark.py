"""The mark in Redis that says how far a stream's rows are online, and whose they are: one hash for each live view.

Beside `known_at`, `batch` and `rows` it has a field for each row's key, with the seconds of the event_time that the row
must have at least: so a row that Redis lost is told from a customer without activity. Rows are written before the mark.
It is one key: evicted or deleted, it is gone as a whole, and then nothing of the stream is online.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plumbline.product import Product
from plumbline.servers import online_mark

if TYPE_CHECKING:
    import redis

KNOWN_AT, BATCH, ROWS = b"known_at", b"batch", b"rows"
ABOUT = (KNOWN_AT, BATCH, ROWS)
"""The fields that are no row's."""


NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Upto:
    """How far a stream is online: the `known_at` of the newest micro-batch with a row (aware, UTC), and its name."""

    known_at: datetime
    batch: str


def key(product: Product, view: str) -> str:
    """The mark's key."""
    return f"{product.online_mark}:{view}"


def upto(client: redis.Redis, product: Product, view: str) -> Upto | None:
    """How far the view's rows are online; None when nothing is, or what lies there is no mark."""
    from redis.exceptions import ResponseError

    try:
        known_at, batch = client.hmget(key(product, view), [KNOWN_AT, BATCH])  # type: ignore[misc]
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return None
    return None if known_at is None else Upto(datetime.fromisoformat(known_at.decode()), (batch or b"").decode())


def advance(
    client: redis.Redis,
    product: Product,
    view: str,
    to: Upto,
    seconds: Mapping[bytes, int],
    since: datetime | None = None,
) -> bool:
    """Moves the mark on by rows that were written, by their keys; readers see all of it or nothing.

    False, and nothing is changed, when there is no mark, or one that is not at `since`: Redis lost what was online
    before, went back to an older state, or is in doubt. So too when the mark is further: the rows are older ones.
    """
    from redis import WatchError

    place = key(product, view)
    with client.pipeline() as pipeline:
        pipeline.watch(place)  # type: ignore[no-untyped-call]
        before = upto(client, product, view)
        if before is None or since not in (None, before.known_at) or to.known_at < before.known_at:
            return False
        pipeline.multi()
        for fields in _parts(seconds):
            pipeline.hset(place, mapping=fields)
        pipeline.hset(place, mapping=_about(to))
        pipeline.hlen(place)
        try:
            held = pipeline.execute()[-1]
        except WatchError:
            return False
    client.hset(place, ROWS.decode(), str(held - len(ABOUT)))
    return True


def write(client: redis.Redis, product: Product, view: str, to: Upto, seconds: Mapping[bytes, int]) -> None:
    """Writes the mark anew: these rows are online and no others."""
    place, coming = key(product, view), f"{key(product, view)}:coming"
    client.delete(coming)
    for fields in _parts(seconds):
        client.hset(coming, mapping=fields)
    client.hset(coming, mapping={**_about(to), ROWS: len(seconds)})
    client.rename(coming, place)


def doubt(client: redis.Redis, product: Product, view: str) -> None:
    """Says that what is online is not what the stream brought: its next micro-batch mends it. Whose rows there are
    stays, so that those which were taken out count as lost and the others are served. Nothing without a mark."""
    if upto(client, product, view) is not None:
        client.hset(key(product, view), mapping=_about(Upto(NEVER, "")))


def drop(client: redis.Redis, product: Product, view: str, row_keys: Iterable[bytes] = ()) -> None:
    """Takes these rows out of the mark; without any, the mark as a whole."""
    place, keys = key(product, view), list[Any](row_keys)
    if not keys:
        client.delete(place)
    elif removed := client.hdel(place, *keys):
        client.hincrby(place, ROWS.decode(), -int(removed))  # type: ignore[arg-type]


def _about(to: Upto) -> dict[Any, Any]:
    return {KNOWN_AT: to.known_at.isoformat(), BATCH: to.batch}


def _parts(seconds: Mapping[bytes, int]) -> Iterable[dict[Any, Any]]:
    return ({key: seconds[key] for key in keys} for keys in online_mark.batches(seconds))
