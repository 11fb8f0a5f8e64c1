"""One feature service's values for a batch of customers, from Feast's online store, in one round trip.

Feast names keys, fields and types, Feast's on-demand views compute, by Feast's definitions. Each row is decoded by
itself: in Feast's own read one row that cannot be decoded, or one key of another Redis type, fails all the others.
Left out too is the response message that `get_online_features` packs value by value and unpacks again (bench: `make
bench`). A test holds the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo import feast_internals
from plumbline.product import Product
from plumbline.servers import live_mark

if TYPE_CHECKING:
    from feast import FeatureStore

Columns = dict[str, list[Any]]

LIST = "_list_val"
"""How the kinds end whose value is a list, as an embedding is."""

KEY_OF_ANOTHER_TYPE = "WRONGTYPE"
"""How Redis's answer begins when one key is no hash: an error of that key, not of the store."""


class Unreadable(Exception):
    """A stored row that cannot be used; the text says why."""


@dataclass
class StoredRow:
    """What Redis holds of one customer: the values by name, null as None, and by view the row's event_time (UTC).

    `fault` says why a row that is there cannot be used. `absent`: a view has no row at all of this customer. A live
    view without activity within its ttl is neither: its values are null, and it has no stamp. `lost` names a live view
    whose row is gone, or older than the stream's mark says.
    """

    values: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, datetime] = field(default_factory=dict)
    fault: str | None = None
    absent: bool = False
    lost: str | None = None


class NotOnline(Exception):
    """Nothing of a live view is online; the text is its name."""


class ServiceRead:
    """The definitions of a service, looked up once. `names` are its features in its order; `ttl` is by view, the live
    ones are in `live` too."""

    def __init__(self, store: FeatureStore, product: Product, service: str, also: str) -> None:
        """`also` names a feature to read beside the service's own, in each view that a release brings.

        Raises feast's FeastObjectNotFoundException when the registry has no such service.
        """
        from feast.on_demand_feature_view import OnDemandFeatureView
        from feast.protos.feast.types.Value_pb2 import Value

        projections = store.get_feature_service(service).feature_view_projections
        self.names = [feature.name for projection in projections for feature in projection.features]
        needed: dict[str, list[str]] = {}
        self._on_demand: list[OnDemandFeatureView] = []
        demanded = {view.name: view for view in store.list_on_demand_feature_views()}
        for projection in projections:
            sources = [projection]
            if on_demand := demanded.get(projection.name):
                self._on_demand.append(on_demand)
                sources = list(on_demand.source_feature_view_projections.values())
            for source in sources:
                beside = [] if source.name in product.streams else [also]
                needed.setdefault(source.name, beside).extend(feature.name for feature in source.features)
        self._views = [(store.get_feature_view(view), list(dict.fromkeys(names))) for view, names in needed.items()]
        self._fields = [feast_internals.row_fields(view, names) for view, names in self._views]
        self._kinds = [feast_internals.value_kinds(view, names) for view, names in self._views]
        self.ttl: dict[str, timedelta | None] = {view.name: view.ttl for view, _ in self._views}
        self.live = [view for view in self.ttl if view in product.streams]
        self._store, self._product, self._parse = store, product, Value.FromString

    def row_keys(self, customers: list[Any]) -> list[bytes]:
        """The key of each customer's hash in Redis, in their order."""
        return feast_internals.entity_keys(self._store, self._product, customers)

    def stored(self, customers: list[Any], now: datetime) -> list[StoredRow]:
        """The stored features of each customer, in their order. Raises redis's errors when the store does not answer,
        NotOnline for a live view without a mark; a key or row that is broken is the `fault` of its customer alone."""
        from redis.exceptions import ResponseError

        keys = self.row_keys(customers)
        with feast_internals.redis_client(self._store).pipeline(transaction=False) as pipeline:
            for key in keys:
                for fields in self._fields:
                    pipeline.hmget(key, fields)
            for view in self.live:
                pipeline.hmget(live_mark.key(self._product, view), [live_mark.KNOWN_AT, *keys])
            answers = pipeline.execute(raise_on_error=False)
        rows, views, due = [], len(self._views), self._due(answers[len(customers) * len(self._views) :])
        for i in range(len(customers)):
            row = StoredRow()
            for number, answer in enumerate(answers[i * views : (i + 1) * views]):
                view = self._views[number][0].name
                if isinstance(answer, ResponseError) and str(answer).startswith(KEY_OF_ANOTHER_TYPE):
                    row.fault = "its key in the online store is no hash of features"
                elif isinstance(answer, Exception):
                    raise answer
                elif view in due:
                    self._live(row, number, answer, due[view][i], now)
                elif not any(value is not None for value in answer):
                    row.absent = True
                else:
                    self._decode(row, number, answer)
            rows.append(row)
        return rows

    def _due(self, marks: list[Any]) -> dict[str, list[int | None]]:
        """By live view, of each customer the seconds of the row that the stream brought, by its mark."""
        from redis.exceptions import ResponseError

        due: dict[str, list[int | None]] = {}
        for view, mark in zip(self.live, marks, strict=True):
            if isinstance(mark, Exception) and not isinstance(mark, ResponseError):
                raise mark
            if isinstance(mark, ResponseError) or mark[0] is None:
                raise NotOnline(view)
            due[view] = [None if second is None else int(second) for second in mark[1:]]
        return due

    def _live(self, row: StoredRow, number: int, answer: list[bytes | None], due: int | None, now: datetime) -> None:
        """Adds a live view's fields to a row: those of the row that the mark names or a newer one, which is written
        before the mark moves; nulls where neither is within the ttl, as the historical join gives."""
        view, names = self._views[number]
        expired = due is None or bool(view.ttl and now.timestamp() - due > view.ttl.total_seconds())
        read = StoredRow()
        if any(value is not None for value in answer):
            self._decode(read, number, answer)
        stamp = read.stamps.get(view.name)
        if stamp is not None and read.fault is None and view.ttl and now - stamp > view.ttl:
            stamp = None
        if stamp is not None and read.fault is None and (expired or int(stamp.timestamp()) >= (due or 0)):
            row.values |= read.values
            row.stamps[view.name] = stamp
        elif expired:
            row.values |= dict.fromkeys(names)
        elif read.fault is not None:
            row.fault = read.fault
        else:
            row.lost = view.name

    def _decode(self, row: StoredRow, number: int, answer: list[bytes | None]) -> None:
        """Adds one view's fields to a row, or says in `fault` why it cannot be used."""
        view, names = self._views[number]
        stamp, *values = answer
        try:
            if missing := [name for name, value in zip(names, values, strict=True) if value is None]:
                raise Unreadable(f"{view.name} lacks {', '.join(missing)}")
            row.stamps[view.name] = _time(view.name, stamp)
            for name, kind, value in zip(names, self._kinds[number], values, strict=True):
                row.values[name] = _value(name, kind, value, self._parse)
        except Unreadable as fault:
            row.fault = f"its row in the online store is broken: {fault}"

    def with_on_demand(self, columns: Columns, request_time: int) -> Columns:
        """The columns and what the service computes from them and the request's time (seconds since 1970)."""
        from feast.type_map import python_values_to_proto_values

        rows = len(next(iter(columns.values()), []))
        inputs = {**columns, "request_time": [request_time] * rows}
        computed: Columns = {}
        for view in self._on_demand:
            outputs = view.transform_dict(dict(inputs))
            for feature in view.features:  # as the declared type holds it: a FLOAT is rounded to one
                typed = python_values_to_proto_values(list(outputs[feature.name]), feature.dtype.to_value_type())
                computed[feature.name] = [_plain(value) for value in typed]
        return {**columns, **computed}


def _time(view: str, stored: bytes | None) -> datetime:
    """The row's event_time, UTC. Raises Unreadable for none, and for what is no time."""
    if stored is None:
        raise Unreadable(f"{view} lacks its time (_ts:{view})")
    try:
        at: datetime = Timestamp.FromString(stored).ToDatetime(tzinfo=UTC)
    except (DecodeError, ValueError, OverflowError):
        raise Unreadable(f"the time of {view} (_ts:{view}) cannot be decoded") from None
    return at


def _value(name: str, kind: str, stored: Any, parse: Callable[[Any], Any]) -> Any:
    """A stored value as Python's own, None for null. A NaN counts as null: a model takes it for missing.

    Raises Unreadable for bytes that are no value, a value of another type than defined, and infinity.
    """
    try:
        value = parse(stored)
    except DecodeError:
        raise Unreadable(f"{name} cannot be decoded") from None
    oneof = value.WhichOneof("val")
    if oneof == kind:
        plain = _plain(value)
        if isinstance(plain, float) and math.isinf(plain):
            raise Unreadable(f"{name} is {plain}, expected a finite number or null")
        return plain
    if oneof == "null_val" or not stored:
        return None
    raise Unreadable(f"{name} is stored as {oneof or 'unknown bytes'}, expected {kind}")


def _plain(value: Any) -> Any:
    """A Feast value as Python's own; None for null and for a NaN."""
    kind = value.WhichOneof("val") if value is not None else None
    plain: Any = getattr(value, kind) if kind and kind != "null_val" else None
    if kind and kind.endswith(LIST):
        return list(plain.val)
    return None if isinstance(plain, float) and math.isnan(plain) else plain
