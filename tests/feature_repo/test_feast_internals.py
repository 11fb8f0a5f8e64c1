"""Feast's private names are read anew when its version changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo import feast_internals
from feature_repo import store as feature_store
from plumbline.servers import online_store
from products.churn import CHURN

NOW = datetime(1998, 7, 1, tzinfo=UTC)


def test_it_was_written_against_the_version_that_is_installed() -> None:
    assert version("feast") == feast_internals.VERSION, (
        "feature_repo/feast_internals.py uses names that Feast does not promise: "
        "read them in the new version, then change VERSION"
    )


@pytest.mark.servers
def test_rows_lie_in_redis_byte_for_byte_as_feasts_own_writer_lays_them(home: Path) -> None:
    """Whole numbers, floats of any bits, and nulls; two rows of one instant."""
    client = online_store.client()
    feature_store.apply(CHURN)
    store = feature_store.open_store(CHURN)
    view = store.get_feature_view(CHURN.view)
    names, kinds = [field.name for field in view.features], feast_internals.value_kinds(view)
    assert {"int64_val", "float_val"} <= set(kinds)
    entities, times = [1, 2, 2**40], [NOW, NOW, NOW - timedelta(microseconds=1)]
    of_kind = {"float_val": [0.0, -0.0, 1e-45], "int64_val": [0, None, -(2**63)], "int32_val": [1, None, -(2**31)]}
    columns = {name: of_kind.get(kind, [None] * 3) for name, kind in zip(names, kinds, strict=True)}
    messages = [
        [Value() if value is None else Value(**{kind: value}) for value in columns[name]]
        for name, kind in zip(names, kinds, strict=True)
    ]
    values = [dict(zip(names, row, strict=True)) for row in zip(*messages, strict=True)]
    protos = feast_internals.entity_protos(CHURN, entities)
    data = [(key, row, time, None) for key, row, time in zip(protos, values, times, strict=True)]
    feast_internals.provider(store).online_write_batch(store.config, view, data, None)
    keys = feast_internals.entity_keys(store, CHURN, entities)
    feasts = [client.hgetall(key) for key in keys]
    client.flushall()
    feast_internals.write_rows(store, view, keys, times, columns)
    assert [client.hgetall(key) for key in keys] == feasts
    assert all(len(one) == len(names) + 1 for one in feasts)
