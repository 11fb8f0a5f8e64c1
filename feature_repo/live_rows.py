"""The rows of a live view go to Redis through Feast, micro-batch by micro-batch; and are mended from the table.

A live view (`Product.streams`) does not wait for a release. The order for each micro-batch: its rows are in the lake,
then in Redis, then the mark there moves on (`plumbline.servers.live_mark`). Wherever that was cut, the same once more,
or `repair`, ends at what the table holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING

from feature_repo import feast_internals, online_keys
from feature_repo import store as feature_store
from feature_repo.feast_internals import Entity
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.servers import live_mark, online_store
from plumbline.servers.live_mark import Upto
from plumbline.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa
    import redis
    from feast import FeatureStore

TIMEOUT = 10
"""Seconds that Redis has to answer one pipeline; Feast itself sets none and would wait for ever."""

PARTITION = "known_date"

_BROUGHT: dict[str, datetime | None] = {}
"""By home and mark, up to when this process brought rows."""


def write(product: Product, view: str, rows: pa.Table) -> int:
    """Brings a micro-batch's rows online: the table's columns, one row an entity. How many rows there are.

    The rows are in the view's table already: where Redis lost what was online before, or went back to an older state,
    or these are older than what is online, all is brought from there. Written again, the same rows change nothing.

    Raises ServiceUnavailable when Redis does not answer.
    """
    if not rows.num_rows:
        return 0
    with _online(product) as (store, client):
        _put(store, product, view, rows)
        upto, place = _upto(rows), _place(product, view)
        if live_mark.advance(client, product, view, upto, _seconds(store, product, rows), _BROUGHT.get(place)):
            _BROUGHT[place] = upto.known_at
        else:
            repair(product, view)
    return int(rows.num_rows)


def repair(product: Product, view: str) -> int:
    """Makes Redis hold each entity's newest row of the table's head that has not expired, and no others; how many rows
    were written or removed. Raises ServiceUnavailable when Redis does not answer."""
    with _online(product) as (store, client):
        newest, upto = _in_table(product, view, store)
        due = {} if newest is None else _stamps(product, newest)
        there = online_keys.whole(store, product, view, client)
        gone = {entity for entity, second in there.items() if second is None or second > due.get(entity, -1)}
        if gone:
            stored = online_keys.rows(store, product, view, client)
            online_keys.remove(store, view, client, (row for row in stored if row.entity in gone))
        lacking = {entity for entity, second in due.items() if there.get(entity) != second}
        if newest is not None and lacking:
            _put(store, product, view, newest.filter([entity in lacking for entity in due]))
        if newest is None or upto is None:
            live_mark.drop(client, product, view)
        else:
            live_mark.write(client, product, view, upto, _seconds(store, product, newest))
        _BROUGHT[_place(product, view)] = upto.known_at if upto else None
        return len(lacking | gone)


def _place(product: Product, view: str) -> str:
    return f"{settings().home} {live_mark.key(product, view)}"


@contextmanager
def _online(product: Product) -> Iterator[tuple[FeatureStore, redis.Redis]]:
    """The store and a client of its Redis, which is started if it is a private one that is down."""
    from redis import RedisError

    client = online_store.client()
    try:
        yield _store(product, str(settings().home), online_store.connection_string()), client
    except (RedisError, OSError) as error:
        raise ServiceUnavailable(
            f"the online store does not answer ({type(error).__name__}: {error}): the rows are in the lake, the next "
            "micro-batch or a repair brings them"
        ) from None


@cache
def _store(product: Product, home: str, address: str) -> FeatureStore:
    """The store for a home and a Redis: opened once, as its definitions do not change while a stream runs."""
    feature_store.apply(product)
    store = feature_store.open_store(product)
    store.config.online_store.connection_string += f",socket_timeout={TIMEOUT},socket_connect_timeout={TIMEOUT}"
    return store


def _put(store: FeatureStore, product: Product, view: str, rows: pa.Table) -> None:
    """Rows as Feast writes them, over newer ones too: an undo needs it so."""
    definition = store.get_feature_view(view)
    rows = rows.select([product.entity, "event_time", *(field.name for field in definition.features)])
    for start in range(0, rows.num_rows, online_keys.BATCH):
        part = rows.slice(start, online_keys.BATCH).to_pydict()
        keys = online_keys.keys(store, product, part[product.entity])
        feast_internals.write_rows(store, definition, keys, part["event_time"], part)


def _in_table(product: Product, view: str, store: FeatureStore) -> tuple[pa.Table | None, Upto | None]:
    """At the head of the view's table: each entity's newest row that has not expired, and the newest micro-batch.

    None for both while the table has no row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    name = product.streams[view]
    if lake.version(name) is None:
        return None, None
    table = lake.open_table(name)
    days = [str(part[PARTITION]) for part in table.partitions()]
    if not days:
        return None, None
    dataset, definition = table.to_pyarrow_dataset(), store.get_feature_view(view)
    day, event_time, oldest = pc.field(PARTITION), pc.field("event_time"), clock.now() - definition.ttl
    last_day = dataset.to_table(["event_time", "batch"], filter=day == date.fromisoformat(max(days)))
    names = [product.entity, "event_time", *(field.name for field in definition.features)]
    fresh = dataset.to_table(names, filter=(day >= oldest.date()) & (event_time >= oldest)).sort_by("event_time")
    numbered = fresh.append_column("row", pa.array(range(len(fresh)), pa.int64()))
    last = numbered.group_by(product.entity).aggregate([("row", "max")])["row_max"]
    return fresh.take(last), _upto(last_day)


def _upto(rows: pa.Table) -> Upto:
    """The newest micro-batch of these rows."""
    last = rows.sort_by("event_time").slice(rows.num_rows - 1).to_pylist()[0]
    return Upto(clock.in_utc(last["event_time"]), last["batch"])


def _stamps(product: Product, rows: pa.Table) -> dict[Entity, int]:
    """Each entity's event_time in seconds since 1970."""
    import pyarrow as pa

    seconds = rows["event_time"].cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_pylist()
    return dict(zip(rows[product.entity].to_pylist(), seconds, strict=True))


def _seconds(store: FeatureStore, product: Product, rows: pa.Table) -> dict[bytes, int]:
    """The same by the keys of their rows in Redis."""
    stamps = _stamps(product, rows)
    return dict(zip(online_keys.keys(store, product, stamps), stamps.values(), strict=True))
