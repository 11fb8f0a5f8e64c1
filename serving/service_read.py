"""One feature service's values for a batch of customers, from Feast's online store, in one round trip.

Feast's store reads and decodes, Feast's on-demand views compute, by Feast's definitions. What is left out of its
`get_online_features` is the response message that it packs value by value and unpacks again (bench: `make bench`).
A test holds the two against each other.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from feature_repo import feast_internals

if TYPE_CHECKING:
    from feast import FeatureStore

Columns = dict[str, list[Any]]


class ServiceRead:
    """The definitions of a service, looked up once. `names` are its features in its order; `ttl` is by view."""

    def __init__(self, store: FeatureStore, service: str, also: dict[str, list[str]]) -> None:
        """`also` names features to read beside the service's own, by view.

        Raises feast's FeastObjectNotFoundException when the registry has no such service.
        """
        from feast.on_demand_feature_view import OnDemandFeatureView

        projections = store.get_feature_service(service).feature_view_projections
        self.names = [feature.name for projection in projections for feature in projection.features]
        needed = {view: list(names) for view, names in also.items()}
        self._on_demand: list[OnDemandFeatureView] = []
        demanded = {view.name: view for view in store.list_on_demand_feature_views()}
        for projection in projections:
            sources = [projection]
            if found := demanded.get(projection.name):
                self._on_demand.append(found)
                sources = list(found.source_feature_view_projections.values())
            for source in sources:
                needed.setdefault(source.name, []).extend(feature.name for feature in source.features)
        self._views = [(store.get_feature_view(view), list(dict.fromkeys(names))) for view, names in needed.items()]
        self.ttl: dict[str, timedelta | None] = {view.name: view.ttl for view, _ in self._views}
        self._provider, self._config = feast_internals.provider(store), store.config

    def stored(self, customers: list[int]) -> tuple[Columns, dict[str, list[datetime | None]]]:
        """The stored features as columns, missing as None; and by view the time of each customer's row, None for no
        row. Both in the customers' order."""
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        keys = [EntityKey(join_keys=["customer_id"], entity_values=[Value(int64_val=c)]) for c in customers]
        columns: Columns = {}
        stamps: dict[str, list[datetime | None]] = {}
        for view, names in self._views:
            rows = self._provider.online_read(self._config, view, keys, list(names))  # it adds to its list
            stamps[view.name] = [stamp for stamp, _ in rows]
            for name in names:
                columns[name] = [_plain(values.get(name)) if values else None for _, values in rows]
        return columns, stamps

    def with_on_demand(self, columns: Columns, request_time: int) -> Columns:
        """The columns and what the service computes from them and the request's time (seconds since 1970)."""
        from feast.type_map import python_values_to_proto_values

        rows = len(next(iter(columns.values()), []))
        given = {**columns, "request_time": [request_time] * rows}
        computed: Columns = {}
        for view in self._on_demand:
            made = view.transform_dict(dict(given))
            for field in view.features:  # as the declared type holds it: a FLOAT is rounded to one
                typed = python_values_to_proto_values(list(made[field.name]), field.dtype.to_value_type())
                computed[field.name] = [_plain(value) for value in typed]
        return {**columns, **computed}


def _plain(value: Any) -> Any:
    """A Feast value as Python's own, None for null."""
    kind = value.WhichOneof("val") if value is not None else None
    return getattr(value, kind) if kind else None
