"""What lies in Redis, row by row, decoded by Feast's own store; and what Feast's on-demand views make of a row.

For whoever holds the online rows against the release they should be of: the predictor reads in `serving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from feature_repo import feast_internals, online_keys
from feature_repo import store as feature_store
from plumbline.product import Product

BATCH = 2_000
"""Customers in one round trip: Redis answers such a pipeline in some 50 ms."""

Row = dict[str, Any]


class OnlineRows:
    """The rows of a product's view that Redis holds. `names` are the view's features, `ttl` is the registry's."""

    def __init__(self, product: Product) -> None:
        """Raises feast's FeatureViewNotFoundException when the definitions were never applied."""
        defined = next(made for made in feature_store.definitions(product).DEFINITIONS if made.name == product.view)
        store = feature_store.open_store(product)
        self._view, self._entity = store.get_feature_view(product.view), product.entity
        self._provider, self._config = feast_internals.provider(store), store.config
        self._redis = feast_internals.redis_client(store)
        self.names = [field.name for field in self._view.features]
        self.ttl: timedelta = self._view.ttl
        self.defined_ttl: timedelta = defined.ttl

    def customers(self) -> set[int]:
        """Everyone who has a row, by Feast's keys: the entity's bytes, then the project's name."""
        return {customer for customer, _ in self._keys()}

    def read(self, customers: list[int]) -> Iterator[tuple[int, datetime | None, Row]]:
        """(customer, the row's event_time, its features) in the order asked; None and no features for no row.

        Values are Python's own, null as None; a FLOAT comes as the double of the same value.
        """
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        for start in range(0, len(customers), BATCH):
            batch = customers[start : start + BATCH]
            keys = [EntityKey(join_keys=[self._entity], entity_values=[Value(int64_val=c)]) for c in batch]
            rows = self._provider.online_read(self._config, self._view, keys, list(self.names))  # it adds to its list
            for customer, (stamp, values) in zip(batch, rows, strict=True):
                there = stamp is not None and stamp.timestamp() != 0  # Feast's time of a row that is not there
                yield customer, stamp if there else None, _plain(values) if there else {}

    def remove(self, customers: set[int]) -> int:
        """Takes these customers' rows out of Redis; how many there were."""
        pipeline = self._redis.pipeline(transaction=False)
        for customer, key in self._keys():
            if customer in customers:
                pipeline.delete(key)
        return sum(pipeline.execute())

    def _keys(self) -> Iterator[tuple[int, bytes]]:
        from feast.infra.key_encoding_utils import deserialize_entity_key

        project = self._config.project.encode()
        for key in online_keys.held(self._config.project, self._redis):
            (value,) = deserialize_entity_key(key.removesuffix(project)).entity_values
            yield value.int64_val, key


def on_demand(product: Product, rows: list[Row], request_times: list[int]) -> list[Row]:
    """What every on-demand view in definitions.py computes for these rows, asked at these times (seconds since 1970).

    Rows hold the table's features, null as None. What comes is typed as declared: a FLOAT is rounded to one.
    """
    defined = feature_store.definitions(product).DEFINITIONS
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.type_map import python_values_to_proto_values

    given: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    given["request_time"] = request_times
    computed: list[Row] = [{} for _ in rows]
    for view in defined if rows else []:
        if isinstance(view, OnDemandFeatureView):
            made = view.feature_transformation.udf(dict(given))
            for field in view.features:
                typed = python_values_to_proto_values(list(made[field.name]), field.dtype.to_value_type())
                for row, value in zip(computed, typed, strict=True):
                    row |= _plain({field.name: value})
    return computed


def _plain(values: dict[str, Any]) -> Row:
    """Feast's values as Python's own, None for null."""
    kinds = {name: value.WhichOneof("val") for name, value in values.items()}
    return {name: getattr(value, kinds[name]) if kinds[name] else None for name, value in values.items()}
