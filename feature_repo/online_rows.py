"""What lies in Redis, row by row, decoded by Feast's own store; and what Feast's on-demand views make of a row.

For whoever holds the online rows against the release they should be of: the predictor reads in `serving`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from feature_repo import feast_internals, online_keys
from feature_repo import store as feature_store
from feature_repo.feast_internals import Entity
from feature_repo.online_keys import StoredRow
from plumbline.errors import ServiceUnavailable
from plumbline.product import Product
from plumbline.servers import online_store

Row = dict[str, Any]


class OnlineRows:
    """The rows of one of a product's views that Redis holds. `names` are the view's features, `ttl` is the registry's
    (0: rows never expire)."""

    def __init__(self, product: Product, view: str) -> None:
        """Raises feast's FeatureViewNotFoundException when the definitions that were applied here lack the view."""
        definitions = feature_store.definitions(product).DEFINITIONS
        defined = next(definition for definition in definitions if definition.name == view)
        self._product, self._store = product, feature_store.open_here(product)
        self._view = self._store.get_feature_view(view)
        self._provider = feast_internals.provider(self._store)
        self._redis = feast_internals.redis_client(self._store)
        self.names = [field.name for field in self._view.features]
        self.ttl: timedelta = self._view.ttl
        self.defined_ttl: timedelta = defined.ttl

    def entities(self) -> set[Entity]:
        """Every entity that Redis holds anything of a row of."""
        return {row.entity for row in self._rows()}

    def read(self, entities: list[Entity]) -> Iterator[tuple[Entity, datetime | None, Row]]:
        """(entity, the row's event_time, its features) in the order of `entities`; None and no features for no row.

        Values are Python's own, null as None; a FLOAT comes as the double of the same value, a list of them as the
        bytes of its 32-bit numbers. A row that cannot be decoded counts as none.
        """
        whole = online_keys.whole(self._store, self._product, self._view.name, self._redis)
        config = self._store.config
        for start in range(0, len(entities), online_keys.BATCH):
            batch = entities[start : start + online_keys.BATCH]
            readable = [entity for entity in batch if whole.get(entity) is not None]
            keys = feast_internals.entity_protos(self._product, readable)
            read = self._provider.online_read(config, self._view, keys, list(self.names)) if keys else []
            rows = dict(zip(readable, read, strict=True))
            for entity in batch:
                stamp, values = rows.get(entity, (None, None))
                yield entity, stamp, _plain(values) if stamp is not None else {}

    def remove(self, entities: set[Entity]) -> int:
        """Takes these entities' rows of the view out of Redis; how many there were."""
        gone = [row for row in self._rows() if row.entity in entities]
        return online_keys.remove(self._store, self._view.name, self._redis, gone)

    def _rows(self) -> Iterator[StoredRow]:
        return online_keys.rows(self._store, self._product, self._view.name, self._redis)


def counts(product: Product) -> tuple[int, int] | None:
    """How many entities have a whole row in Redis, of each view that is online, and how many were written; None while
    no release is online."""
    try:
        client = online_store.client(start=False)
    except ServiceUnavailable:
        return None
    if (written := online_store.rows_written(client, product)) is None:
        return None
    store = feature_store.open_here(product)
    views = [online_keys.whole(store, product, view, client) for view in product.views]
    online = [rows for rows in views if rows] or [{}]
    return sum(all(rows.get(entity) is not None for rows in online) for entity in online[0]), written


def on_demand(product: Product, rows: list[Row], request_times: list[int]) -> list[Row]:
    """What every on-demand view in definitions.py that reads no other features computes for these rows, asked at these
    times (seconds since 1970).

    Rows hold the table's features, null as None. What comes is typed as declared: a FLOAT is rounded to one.
    """
    defined = feature_store.definitions(product).DEFINITIONS
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.type_map import python_values_to_proto_values

    given: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    given["request_time"] = request_times
    computed: list[Row] = [{} for _ in rows]
    for view in defined if rows else []:
        if isinstance(view, OnDemandFeatureView) and _reads(view) <= given.keys():
            made = view.feature_transformation.udf(dict(given))
            for field in view.features:
                typed = python_values_to_proto_values(list(made[field.name]), field.dtype.to_value_type())
                for row, value in zip(computed, typed, strict=True):
                    row |= _plain({field.name: value})
    return computed


def _reads(view: Any) -> set[str]:
    """The names of the stored features that an on-demand view needs: where it takes a view whole, nothing but its name
    tells a feature that it reads from one that it does not, so all of them."""
    return {field.name for source in view.source_feature_view_projections.values() for field in source.features}


def _plain(values: dict[str, Any]) -> Row:
    """Feast's values as Python's own, None for null."""
    return {name: _value(value) for name, value in values.items()}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("val") or "null_val"
    if kind == "null_val":
        return None
    if kind == "float_list_val":
        return array("f", value.float_list_val.val).tobytes()
    return getattr(value, kind)
