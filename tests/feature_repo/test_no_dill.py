"""On-demand functions come from definitions.py. What a registry's file holds of code is never run: nobody signs it.

Feast keeps the source text of each function there, and a dill copy beside it, and would run either.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import PlumblineError
from products.churn import CHURN


def recency(store: Any) -> dict[str, Any]:
    """What the on-demand function of a registry's view gives for an order on day 10,000, asked on day 10,005."""
    view = store.get_on_demand_feature_view("churn_recency")
    computed: dict[str, Any] = view.feature_transformation.udf(
        {"last_order_day": [10_000], "request_time": [10_005 * 86_400]}
    )
    return computed


def pickle_of(marker: Path) -> bytes:
    """A pickle that creates the file `marker` when it is read."""
    name = str(marker).encode()
    return b"\x80\x02cbuiltins\nopen\nX" + len(name).to_bytes(4, "little") + name + b"X\x01\x00\x00\x00w\x86R."


def alter(home: Path, change: Callable[[Any, Any], object]) -> None:
    """Applies the definitions, then changes the registry's file: `change` gets all of it, and the view's function."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    path = home / "feast" / "churn" / "registry.db"
    registry = Registry.FromString(path.read_bytes())
    function = registry.on_demand_feature_views[0].spec.feature_transformation.user_defined_function
    assert function.body and function.body_text, "Feast still keeps both"
    change(registry, function)
    path.write_bytes(registry.SerializeToString())


def test_a_registry_is_read_and_its_functions_run_without_their_copies(home: Path, dill_loads: list[str]) -> None:
    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    store = feature_store.open_store(CHURN)
    assert recency(store) == {"days_since_last_order": [5]}
    store.refresh_registry()
    assert recency(store) == {"days_since_last_order": [5]}
    assert dill_loads == []


@pytest.mark.parametrize(
    "text",
    [
        "open({marker!r}, 'w')\n{text}",
        "{text}\nopen({marker!r}, 'w')\n",
        "def churn_recency(inputs):\n    return {{'days_since_last_order': [1001]}}\n",
        "def (",
        " ",
    ],
)
def test_neither_an_altered_text_nor_a_pickle_beside_it_runs(home: Path, text: str) -> None:
    """A statement before or after the function, another function, and a text that would make Feast load the pickle."""
    from feature_repo import store as feature_store

    marker = home / "ran"

    def change(_: Any, function: Any) -> None:
        function.body = pickle_of(marker)
        function.body_text = text.format(marker=str(marker), text=function.body_text)

    alter(home, change)
    store = feature_store.open_store(CHURN)
    assert recency(store) == {"days_since_last_order": [5]}
    assert [recency_of.name for recency_of in store.list_on_demand_feature_views()] == [
        "churn_recency",
        "activity_recency",
        "live_recency",
    ]
    assert not marker.exists()


def rename(_: Any, function: Any, marker: Path) -> None:
    function.name, function.body = "someone_elses", pickle_of(marker)


def without_text(_: Any, function: Any, marker: Path) -> None:
    function.body_text, function.body = "", pickle_of(marker)


def as_substrait(registry: Any, _: Any, marker: Path) -> None:
    transformation = registry.on_demand_feature_views[0].spec.feature_transformation
    transformation.substrait_transformation.ibis_function = pickle_of(marker)


@pytest.mark.parametrize("plant", [rename, without_text, as_substrait])
def test_code_that_definitions_do_not_have_is_refused_by_name(home: Path, plant: Callable[..., None]) -> None:
    from feature_repo import store as feature_store

    marker = home / "ran"
    alter(home, lambda registry, function: plant(registry, function, marker))
    with pytest.raises(PlumblineError, match=r"which definitions.py does not have: it is not run"):
        recency(feature_store.open_store(CHURN))
    assert not marker.exists()


def test_a_planted_stream_view_is_not_loaded(home: Path) -> None:
    """Feast loads the pickle of a stream view whoever lists the views."""
    from feature_repo import store as feature_store

    marker = home / "ran"

    def change(registry: Any, _: Any) -> None:
        view = registry.stream_feature_views.add()
        view.spec.name, view.spec.project = "planted", "churn"
        view.spec.user_defined_function.name = "planted"
        view.spec.user_defined_function.body = pickle_of(marker)

    alter(home, change)
    store = feature_store.open_store(CHURN)
    with pytest.raises(PlumblineError, match="holds a pickle"):
        store.list_stream_feature_views()
    assert not marker.exists()


def test_the_pickle_of_these_tests_does_leave_a_mark(tmp_path: Path) -> None:
    (tmp_path / "planted").write_bytes(pickle_of(tmp_path / "ran"))
    unpickle = f"import pickle; pickle.load(open({str(tmp_path / 'planted')!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", unpickle], check=True, timeout=60)
    assert (tmp_path / "ran").exists()
