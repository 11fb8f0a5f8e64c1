"""The rows of a product's view as they lie in Redis: one hash a customer, recognized by decoding its key.

Redis may be shared. A key is ours only if it decodes exactly as our project's and our entity's; no other is read. A
hash holds a field for each feature and one, `_ts:<view>`, for the row's event_time, and may hold other views' fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo import feast_internals
from plumbline.product import Product

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore

BATCH = 2_000
"""Customers in one round trip: Redis answers such a pipeline in some 50 ms."""


@dataclass(frozen=True)
class StoredRow:
    """One customer's key, and the bytes of the view's fields there in `row_fields`' order: the event_time's first.

    None stands for a field that is absent. `values` is None for a key that is no hash, which nobody can read.
    """

    customer: int
    key: Any
    values: list[bytes | None] | None

    @property
    def exists(self) -> bool:
        """Whether anything of the view's row is there."""
        return self.values is None or any(value is not None for value in self.values)


def customers(store: FeatureStore, product: Product, client: redis.Redis) -> Iterator[tuple[int, Any]]:
    """Every customer with a key of the product's project and entity, and that key; other views' rows are among them."""
    for key in client.scan_iter(count=10_000):
        customer = feast_internals.customer_of(store, product.entity, key)
        if customer is not None:
            yield customer, key


def keys(store: FeatureStore, product: Product, customers: Iterable[int]) -> list[Any]:
    """The key of each customer, in their order."""
    return feast_internals.customer_keys(store, product.entity, customers)


def rows(store: FeatureStore, product: Product, client: redis.Redis) -> Iterator[StoredRow]:
    """The view's row of each customer who has anything of one."""
    from redis import ResponseError

    fields = feast_internals.row_fields(store.get_feature_view(product.view))
    everyone = list(dict(customers(store, product, client)).items())  # SCAN may name a key twice
    for start in range(0, len(everyone), BATCH):
        batch = everyone[start : start + BATCH]
        pipeline = client.pipeline(transaction=False)
        for _, key in batch:
            pipeline.hmget(key, fields)
        for (customer, key), values in zip(batch, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(values, Exception) and not isinstance(values, ResponseError):
                raise values
            row = StoredRow(customer, key, None if isinstance(values, ResponseError) else values)
            if row.exists:
                yield row


def whole(store: FeatureStore, product: Product, client: redis.Redis) -> dict[int, int | None]:
    """Each customer with anything of a row, and its event_time in seconds since 1970; None for a row that is not whole.

    A row is whole when every feature of the view is there, decodes, and is null or of its declared type.
    """
    kinds = feast_internals.value_kinds(store.get_feature_view(product.view))
    return {row.customer: _event_time(row, kinds) for row in rows(store, product, client)}


def count(store: FeatureStore, product: Product, client: redis.Redis) -> int:
    """How many customers Redis holds anything of a row of."""
    return sum(1 for _ in rows(store, product, client))


def remove(store: FeatureStore, product: Product, client: redis.Redis, gone: Iterable[StoredRow]) -> int:
    """Takes these rows out of Redis; how many went. Redis drops a hash with its last field; other views' fields stay.

    A key of ours that is no hash holds nothing of anybody, and goes whole.
    """
    fields = feast_internals.row_fields(store.get_feature_view(product.view))
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
