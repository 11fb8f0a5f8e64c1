"""The rows of `customer_features` as they lie in Redis: one hash a customer, and how those that must go are taken out.

Keys and fields are named by Feast's own helpers. A key is the entity's bytes, then the project's name; a hash holds a
field for each feature and one, `_ts:<view>`, for the row's event_time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from feature_repo import feast_internals
from feature_repo.feast_internals import row_fields
from plumbline.product import Product

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore


def held(project: str, client: redis.Redis) -> list[Any]:
    """The keys (bytes, for which redis-py's types have no word) of all customers that Redis holds."""
    return [key for key in client.scan_iter(count=10_000) if key.endswith(project.encode())]


def keys(store: FeatureStore, product: Product, customers: Iterable[int]) -> list[Any]:
    """The key of each customer, in their order."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    entities = (EntityKey(join_keys=[product.entity], entity_values=[Value(int64_val=number)]) for number in customers)
    return [feast_internals.row_key(store, entity) for entity in entities]


def sweep(store: FeatureStore, product: Product, client: redis.Redis, customers: list[int], *, fields_too: bool) -> int:
    """Takes the view's row of every customer who is not among these out of Redis; how many rows went.

    With `fields_too` also what a hash holds of features that are no longer defined.
    """
    present = held(store.project, client)
    gone = sorted(set(present) - set(keys(store, product, customers)))
    pipeline = client.pipeline(transaction=False)
    for key in gone:
        pipeline.hdel(key, *row_fields(store.get_feature_view(product.view)))
    pipeline.execute()
    if fields_too:
        _forget_undefined(store, product, client, sorted(set(present) - set(gone)))
    return len(gone)


def _forget_undefined(store: FeatureStore, product: Product, client: redis.Redis, kept: list[Any]) -> None:
    views = [view for view in store.list_feature_views() if product.entity in view.join_keys]
    defined = {field for view in views for field in row_fields(view)}
    pipeline = client.pipeline(transaction=False)
    for key in kept:
        pipeline.hkeys(key)
    found = pipeline.execute()
    for key, names in zip(kept, found, strict=True):
        if undefined := set(names) - defined:
            pipeline.hdel(key, *undefined)
    pipeline.execute()
