"""What lies in Redis, row by row, decoded by Feast's own store; and what Feast's on-demand views make of a row.

For whoever holds the online rows against the release they should be of: the predictor reads in `serving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from feature_repo import feast_internals, online_keys
from feature_repo import store as feature_store
from plumbline.errors import ServiceUnavailable
from plumbline.product import Product
from plumbline.servers import online_store

Row = dict[str, Any]


class OnlineRows:
    """The rows of a product's view that Redis holds. `names` are the view's features, `ttl` is the registry's."""

    def __init__(self, product: Product) -> None:
        """Raises feast's FeatureViewNotFoundException when the definitions were never applied."""
        definitions = feature_store.definitions(product).DEFINITIONS
        defined = next(definition for definition in definitions if definition.name == product.view)
        self._product, self._store = product, feature_store.open_store(product)
        self._view = self._store.get_feature_view(product.view)
        self._provider = feast_internals.provider(self._store)
        self._redis = feast_internals.redis_client(self._store)
        self.names = [field.name for field in self._view.features]
        self.ttl: timedelta = self._view.ttl
        self.defined_ttl: timedelta = defined.ttl

    def customers(self) -> set[int]:
        """Everyone of whom Redis holds anything of a row."""
        return {row.customer for row in online_keys.rows(self._store, self._product, self._redis)}

    def read(self, customers: list[int]) -> Iterator[tuple[int, datetime | None, Row]]:
        """(customer, the row's event_time, its features) in the order of `customers`; None and no features for no row.

        Values are Python's own, null as None; a FLOAT comes as the double of the same value. A row that cannot be
        decoded counts as none.
        """
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        whole = online_keys.whole(self._store, self._product, self._redis)
        entity, config = self._product.entity, self._store.config
        for start in range(0, len(customers), online_keys.BATCH):
            batch = customers[start : start + online_keys.BATCH]
            readable = [customer for customer in batch if whole.get(customer) is not None]
            keys = [EntityKey(join_keys=[entity], entity_values=[Value(int64_val=c)]) for c in readable]
            read = self._provider.online_read(config, self._view, keys, list(self.names)) if keys else []
            rows = dict(zip(readable, read, strict=True))
            for customer in batch:
                stamp, values = rows.get(customer, (None, None))
                yield customer, stamp, _plain(values) if stamp is not None else {}

    def remove(self, customers: set[int]) -> int:
        """Takes these customers' rows of the view out of Redis; how many there were."""
        rows = online_keys.rows(self._store, self._product, self._redis)
        gone = [row for row in rows if row.customer in customers]
        return online_keys.remove(self._store, self._product, self._redis, gone)


def counts(product: Product) -> tuple[int, int] | None:
    """How many customers have a whole row in Redis, and how many were written; None while no release is online."""
    try:
        client = online_store.client(start=False)
    except ServiceUnavailable:
        return None
    if (written := online_store.rows_written(client, product)) is None:
        return None
    rows = online_keys.whole(feature_store.open_store(product), product, client)
    return sum(event_time is not None for event_time in rows.values()), written


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
    kinds = {name: value.WhichOneof("val") or "null_val" for name, value in values.items()}
    return {name: None if kinds[name] == "null_val" else getattr(values[name], kinds[name]) for name in values}
