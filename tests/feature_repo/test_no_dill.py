"""Feast keeps a dill copy of each on-demand function beside its source text. The copy is never loaded, only the text.

Feast falls back to the copy without a word when the text does not run by itself (an import outside the function will
do), and a copy is bytes that nobody can review. The text is code too: who may write the registry is trusted with that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from products.churn import CHURN


def recency(found: Any) -> dict[str, Any]:
    """What the on-demand function of a registry's view gives for an order on day 10,000, asked on day 10,005."""
    view = found.get_on_demand_feature_view("churn_recency")
    computed: dict[str, Any] = view.feature_transformation.udf(
        {"last_order_day": [10_000], "request_time": [10_005 * 86_400]}
    )
    return computed


def test_a_registry_is_read_and_its_functions_run_without_their_copies(home: Path, dill_loads: list[str]) -> None:
    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    store = feature_store.open_store(CHURN)
    assert recency(store) == {"days_since_last_order": [5]}
    store.refresh_registry()
    assert recency(store) == {"days_since_last_order": [5]}
    assert dill_loads == []


def test_a_planted_copy_is_not_what_runs(home: Path, dill_loads: list[str]) -> None:
    """A registry whose copy is another one gives what the source text says, and the copy stays unread."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    path = home / "feast" / "churn" / "registry.db"
    registry = Registry.FromString(path.read_bytes())
    (view,) = registry.on_demand_feature_views
    planted = view.spec.feature_transformation.user_defined_function
    assert planted.body and planted.body_text, "Feast still keeps both"
    sung = home / "sung"
    name = str(sung).encode()
    planted.body = b"\x80\x02cbuiltins\nopen\nX" + len(name).to_bytes(4, "little") + name + b"X\x01\x00\x00\x00w\x86R."
    path.write_bytes(registry.SerializeToString())
    assert recency(feature_store.open_store(CHURN)) == {"days_since_last_order": [5]}
    assert dill_loads == [] and not sung.exists()


def test_the_watch_would_see_a_copy_that_is_loaded(home: Path, dill_loads: list[str]) -> None:
    """A source text that does not run makes Feast fall back to the copy, silently: then the watch goes off."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    path = home / "feast" / "churn" / "registry.db"
    registry = Registry.FromString(path.read_bytes())
    registry.on_demand_feature_views[0].spec.feature_transformation.user_defined_function.body_text = "def ("
    path.write_bytes(registry.SerializeToString())
    with pytest.raises(Exception, match="a dill copy was loaded"):
        recency(feature_store.open_store(CHURN))
    assert dill_loads
