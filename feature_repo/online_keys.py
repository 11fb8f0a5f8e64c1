"""The rows of a product's views as they lie in Redis: one hash an entity, recognized by decoding its key.

Redis may be shared. A key is ours only if it decodes exactly as our project's and our entity's; no other is read. A
hash holds a field for each feature and one, `_ts:<view>`, for the row's event_time, and may hold other views' fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo import feast_internals
from feature_repo.feast_internals import Entity
from plumbline.product import Product

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore

BATCH = 2_000
"""Entities in one round trip: Redis answers such a pipeline in some 50 ms."""


@dataclass(frozen=True)
class StoredRow:
    """One entity's key, and the bytes of a view's fields there in `row_fields`' order: the event_time's first.

    None stands for a field that is absent. `values` is None for a key that is no hash, which nobody can read.
    """

    entity: Entity
    key: Any
    values: list[bytes | None] | None

    @property
    def exists(self) -> bool:
        """Whether anything of the view's row is there."""
        return self.values is None or any(value is not None for value in self.values)


def entities(store: FeatureStore, product: Product, client: redis.Redis) -> Iterator[tuple[Entity, Any]]:
    """Every entity with a key of the product's project, and that key; whichever views' rows are in it."""
    for key in client.scan_iter(count=10_000):
        entity = feast_internals.entity_of(store, product, key)
        if entity is not None:
            yield entity, key


def keys(store: FeatureStore, product: Product, entities: Iterable[Entity]) -> list[Any]:
    """The key of each entity, in their order."""
    return feast_internals.entity_keys(store, product, entities)


def rows(store: FeatureStore, product: Product, view: str, client: redis.Redis) -> Iterator[StoredRow]:
    """A view's row of each entity that has anything of one; some thousand are in memory at a time."""
    from redis import ResponseError

    fields = feast_internals.row_fields(store.get_feature_view(view))
    everyone = list(dict(entities(store, product, client)).items())  # SCAN may name a key twice
    for start in range(0, len(everyone), BATCH):
        batch = everyone[start : start + BATCH]
        pipeline = client.pipeline(transaction=False)
        for _, key in batch:
            pipeline.hmget(key, fields)
        for (entity, key), values in zip(batch, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(values, Exception) and not isinstance(values, ResponseError):
                raise values
            row = StoredRow(entity, key, None if isinstance(values, ResponseError) else values)
            if row.exists:
                yield row


def whole(store: FeatureStore, product: Product, view: str, client: redis.Redis) -> dict[Entity, int | None]:
    """Each entity with anything of a view's row, and its event_time in seconds since 1970; None for a row that is not
    whole.

    A row is whole when every feature of the view is there, decodes, and is null or of its declared type.
    """
    kinds = feast_internals.value_kinds(store.get_feature_view(view))
    return {row.entity: _event_time(row, kinds) for row in rows(store, product, view, client)}


def remove(store: FeatureStore, view: str, client: redis.Redis, gone: Iterable[StoredRow]) -> int:
    """Takes these rows out of Redis; how many went. Redis drops a hash with its last field; other views' fields stay.

    A key of ours that is no hash holds nothing of anybody, and goes whole.
    """
    fields = feast_internals.row_fields(store.get_feature_view(view))
    pipeline = client.pipeline(transaction=False)
    for row in gone:
        if row.values is None:
            pipeline.delete(row.key)
        else:
            pipeline.hdel(row.key, *fields)
    return sum(1 for removed in pipeline.execute() if removed)


def _event_time(row: StoredRow, kinds: list[str]) -> int | None:
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.message import DecodeError
    from google.protobuf.timestamp_pb2 import Timestamp

    if row.values is None or None in row.values:
        return None
    stamp, *features = (value or b"" for value in row.values)
    try:
        stored = [Value.FromString(feature).WhichOneof("val") for feature in features]
        seconds = Timestamp.FromString(stamp).seconds
    except DecodeError:
        return None
    return seconds if all(kind in (None, "null_val", due) for kind, due in zip(stored, kinds, strict=True)) else None
