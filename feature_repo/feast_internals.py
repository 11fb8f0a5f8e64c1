"""The names of Feast that are not public and that plumbline uses, here and nowhere else.

Feast has no public way to its Redis client, to a key or a field as they lie in Redis, or to the provider that reads
rows without building a response message. A test fails when Feast's version is another than VERSION.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from plumbline.errors import PlumblineError
from plumbline.product import Product

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

Entity = int | str
"""What names an entity: the value of its join key, a customer's number or an image's id."""

Columns = Mapping[str, Sequence[Any]]

KEY_KINDS = {"INT64": "int64_val", "STRING": "string_val"}
"""Feast's names of an entity's type, each with the field of its message that holds such a value."""

VERSION = "0.67.0"
"""The Feast whose code was read for this."""

FOREIGN_CODE = (
    "Feast's registry holds {}, which definitions.py does not have: it is not run. Find out who wrote it, then remove "
    "the folder `feast` in the home and materialize again, which makes the registry anew"
)


def provider(store: FeatureStore) -> Any:
    """What reads and writes the online store: its `online_read` gives decoded rows."""
    return store._get_provider()


def redis_client(store: FeatureStore) -> Any:
    """The client of the store's Redis, with the options of its connection string. It is not connected yet."""
    return provider(store).online_store._get_client(store.config.online_store)


def run_only(functions: Mapping[str, Callable[..., Any]]) -> None:
    """From here on these are the functions of a registry's on-demand views, by their names, and no other runs.

    Feast would run the text that it finds in the registry's file, or load the pickle beside it, and nobody signs that
    file. Reading a view with another function, or anything pickled, then raises PlumblineError.
    """
    import dill
    from feast.transformation import udf_rehydrate

    def resolve(*, preferred_name: str = "", **_: Any) -> Callable[..., Any]:
        if preferred_name not in functions:  # Feast gives None for a function without a name
            raise PlumblineError(FOREIGN_CODE.format(f"the function {preferred_name!r}"))
        return functions[preferred_name]

    def refuse(*_: Any, **__: Any) -> None:
        raise PlumblineError(FOREIGN_CODE.format("a pickle"))

    udf_rehydrate.resolve_udf = resolve
    dill.loads = dill.load = refuse


def row_key(store: FeatureStore, entity: Any) -> bytes:
    """The key of an entity's hash: the entity's bytes, then the project's name."""
    from feast.infra.online_stores.helpers import _redis_key

    version = store.config.entity_key_serialization_version
    key: bytes = _redis_key(store.project, entity, entity_key_serialization_version=version)
    return key


def row_entity(store: FeatureStore, key: bytes) -> Any | None:
    """The entity that a key of Redis belongs to; None unless the key is, byte for byte, one that `row_key` gives.

    A project whose name ends in this one's has other bytes between, and a key of any other make does not decode.
    """
    from feast.infra.key_encoding_utils import deserialize_entity_key

    project = store.project.encode()
    if not key.endswith(project):
        return None
    version = store.config.entity_key_serialization_version
    try:
        entity = deserialize_entity_key(key.removesuffix(project), entity_key_serialization_version=version)
        return entity if row_key(store, entity) == key else None
    except (ValueError, struct.error):
        return None


def entity_keys(store: FeatureStore, product: Product, entities: Iterable[Entity]) -> list[Any]:
    """The key (bytes) of each entity's hash, in their order; an entity is named by the value of its join key."""
    return [_entity_key(store, product.entity, product.entity_type, entity) for entity in entities]


@lru_cache(maxsize=100_000)
def _entity_key(store: FeatureStore, name: str, entity_type: str, entity: Entity) -> Any:
    return row_key(store, _entity_proto(name, entity_type, entity))


def entity_protos(product: Product, entities: Iterable[Entity]) -> list[Any]:
    """The same as Feast's own messages."""
    return [_entity_proto(product.entity, product.entity_type, entity) for entity in entities]


def _entity_proto(name: str, entity_type: str, entity: Any) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    value = Value(string_val=entity) if KEY_KINDS[entity_type] == "string_val" else Value(int64_val=entity)
    return EntityKey(join_keys=[name], entity_values=[value])


def entity_of(store: FeatureStore, product: Product, key: bytes) -> Entity | None:
    """The entity whose hash a key of Redis is; None for any other key."""
    found = row_entity(store, key)
    if found is None or list(found.join_keys) != [product.entity] or len(found.entity_values) != 1:
        return None
    value, kind = found.entity_values[0], KEY_KINDS[product.entity_type]
    entity: Entity | None = getattr(value, kind) if value.WhichOneof("val") == kind else None
    return entity


def value_kinds(view: FeatureView, names: list[str] | None = None) -> list[str]:
    """Which of a protobuf value's fields each feature of a view, or each of `names`, is in, as in `int64_val`."""
    kinds = {feature.name: f"{feature.dtype.to_value_type().name.lower()}_val" for feature in view.features}
    return [kinds[name] for name in (kinds if names is None else names)]


def row_fields(view: FeatureView, names: list[str] | None = None) -> list[Any]:
    """The fields (bytes) of a view in such a hash: one for the row's event_time, then one for each feature, or for
    each of `names`."""
    from feast.infra.online_stores.helpers import _mmh3

    wanted = [feature.name for feature in view.features] if names is None else names
    return [f"_ts:{view.name}".encode(), *(_mmh3(f"{view.name}:{name}") for name in wanted)]


def write_rows(
    store: FeatureStore, view: FeatureView, keys: Sequence[bytes], times: Sequence[datetime], columns: Columns
) -> None:
    """Lays rows into Redis as Feast's own writer does with `skip_dedup`, byte for byte, in a third of its time.

    `keys` are of the rows' hashes, `times` the rows' event_times (aware), `columns` the values by feature, None for
    null. Feast makes a key, a field's name and a message anew for each value of each row; here each is made once.
    """
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

    def stamp(time: datetime) -> bytes:
        made = Timestamp()
        made.FromDatetime(time)
        return bytes(made.SerializeToString())

    def encoded(kind: str, values: Sequence[Any]) -> list[bytes]:
        bits = [value.hex() if isinstance(value, float) else value for value in values]  # 0.0 is -0.0 to a dict
        messages = {
            key: Value() if value is None else Value(**{kind: value})
            for key, value in dict(zip(bits, values, strict=True)).items()
        }
        made = {key: message.SerializeToString() for key, message in messages.items()}
        return [made[key] for key in bits]

    names, kinds, fields = [field.name for field in view.features], value_kinds(view), row_fields(view)
    stamps = {time: stamp(time) for time in set(times)}
    given = [encoded(kind, columns[name]) for name, kind in zip(names, kinds, strict=True)]
    pipeline = redis_client(store).pipeline(transaction=False)
    for key, *values in zip(keys, map(stamps.__getitem__, times), *given, strict=True):
        pipeline.execute_command("HSET", key, *(part for pair in zip(fields, values, strict=True) for part in pair))
    pipeline.execute()
