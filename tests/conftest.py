"""A home of its own for each test, and one Spark server for all that need one."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plumbline.lake import spark
from plumbline.servers import services
from plumbline.settings import ROOT, settings
from tests.object_store import bucket_state, s3_server
from tests.serving.made_home import _home_settings, made_home, serving_home

# fixtures: one server for the whole run, started when it is first asked for
__all__ = ["_home_settings", "bucket_state", "made_home", "s3_server", "serving_home"]

NOW = "1998-07-01T00:00:00Z"

_Homes = Callable[[str, Callable[[], object]], Path]
HomeAs = Callable[[str, Callable[[], object]], object]

# Here and not in a fixture: hypothesis asks when a test module is collected, and would write into the repository.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(ROOT / ".plumbline" / "cache" / "hypothesis")


@pytest.fixture(autouse=True, scope="session")
def _shared_downloads() -> None:
    os.environ.setdefault("PLUMBLINE_CACHE", str(ROOT / ".plumbline" / "cache"))
    for name in list(os.environ):
        if name.startswith("PLUMBLINE_") and name not in ("PLUMBLINE_CACHE", "PLUMBLINE_SPARK_MEMORY"):
            del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def _terminated_cleanly() -> None:
    """SIGTERM ends the run as Ctrl-C does: what the tests started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


SERVER_FIXTURES = {"made_home", "postgres", "s3_server", "shop", "spark_home", "spark_s3_home"}
SERVER_PARAMETERS = {"bucket", "postgres"}
SERVER_PLACES = (
    "cluster",
    "dags",
    "drills",
    "e2e",
    "feature_repo/test_live_rows.py",
    "feature_repo/test_online_rows.py",
    "feature_repo/test_store.py",
    "feature_repo/test_undo_online.py",
    "node",
    "observability/test_airflow_metrics.py",
    "observability/test_alerting.py",
    "plumb/demo/test_replay.py",
    "plumb/reports/preview",
    "plumbline/lake/test_spark.py",
    "plumbline/orchestration",
    "plumbline/pipeline/test_erase.py",
    "plumbline/pipeline/test_retention.py",
    "plumbline/pipeline/test_two_products.py",
    "plumbline/servers",
    "serving/rollout/test_canary_serving.py",
    "serving/rollout/test_rollout_driver.py",
    "training",
    "tutorials",
    "validation/test_leakage_gates.py",
    "validation/test_live_parity.py",
    "validation/test_parity.py",
)
"""Whose tests need a server or a JVM, or train models: whoever asks for one of these fixtures, is run with one of these
parameters, or stands there."""

LONGEST = (
    "test_add_a_feature",
    "test_additions",
    "test_whole_path",
    "test_path_in_object_store",
    "test_your_own",
    "test_transform",
    "test_images_path",
    "test_scheduler",
    "test_drills",
    "test_reproduce_whole",
    "test_order_stream",
    "test_replay",
    "test_canary_serving",
    "test_business_kpis",
    "test_store",
    "test_point_in_time_properties",
    "test_train",
    "test_predictor_server",
    "test_schema_gate",
    "test_history",
)
"""The longest files, longest first: the workers of `make test` share tests by the file, and so end together."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need a server, and puts the longest files first."""
    here = Path(__file__).parent
    places = [here / place for place in SERVER_PLACES]
    for item in items:
        asked = SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        call = getattr(item, "callspec", None)
        given = {value for value in (call.params.values() if call else ()) if isinstance(value, str)}
        if asked or given & SERVER_PARAMETERS or any(item.path.is_relative_to(place) for place in places):
            item.add_marker("servers")
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def _only_marked_tests_start_servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a server belongs to what `make test-fast` leaves out; the mark says so."""

    def refuse(launch: services.Launch) -> services.Service:
        pytest.fail(f"{request.node.nodeid} starts {launch.name}: mark it `servers`")

    if request.node.get_closest_marker("servers") is None:
        monkeypatch.setattr(services, "ensure", refuse)


@pytest.fixture(autouse=True)
def _no_spark_left_over() -> Iterator[None]:
    """`spark.session` tells dbt and Feast its server by the environment; the next test's commands must not go there."""
    before = os.environ.get("SPARK_REMOTE")
    yield
    os.environ.pop("SPARK_REMOTE", None)
    if before is not None:
        os.environ["SPARK_REMOTE"] = before


def inherited() -> dict[str, str]:
    """The environment for a command that finds a Spark of its own: without what a client in this process left."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Path:
    """Makes `home` the home of this process and of the commands it starts."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(home))
    monkeypatch.setenv("PLUMBLINE_NOW", NOW)
    for name, value in more.items():
        monkeypatch.setenv(f"PLUMBLINE_{name.upper()}", value)
    settings.cache_clear()
    return home


def _stop_all(home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        services.stop_all()
    settings.cache_clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home whose clock stands at 1998-07-01; what was started in it is stopped."""
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    yield use_home(tmp_path / "home", monkeypatch)
    monkeypatch.undo()  # whatever the test set
    _stop_all(tmp_path / "home")


@pytest.fixture
def own_contracts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the contracts that a test may change, in force in its home."""
    folder = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", folder)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder))
    settings.cache_clear()
    return folder


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> _Homes:
    """The home that `fill` leaves, made when it is first asked for by that name. Nobody works in it."""
    made: dict[str, Path] = {}

    def filled(name: str, fill: Callable[[], object]) -> Path:
        if name not in made:
            home = tmp_path_factory.mktemp("home") / "home"
            with pytest.MonkeyPatch.context() as patch:
                use_home(home, patch)
                fill()
            settings.cache_clear()
            made[name] = home
        return made[name]

    return filled


@pytest.fixture
def home_as(home: Path, _homes: _Homes) -> HomeAs:
    """Fills this test's home as `fill` would: it runs once for each name, and each test gets a copy of what it left."""
    return lambda name, fill: shutil.copytree(_homes(name, fill), home, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the one real Spark Connect server of the whole test run, started when it is first asked for."""
    home = tmp_path_factory.mktemp("spark")
    yield home
    if "pyspark" in sys.modules:  # or its client tries to say goodbye to a server that is gone
        from pyspark.sql import SparkSession

        if session := SparkSession.getActiveSession():
            session.stop()
    _stop_all(home)


@pytest.fixture
def spark_address(spark_home: Path) -> str:
    """sc://… of the shared Spark server, for a test that lets only a part of itself use it."""
    with pytest.MonkeyPatch.context() as patch:
        use_home(spark_home, patch)
        address = spark.server_url()
    settings.cache_clear()
    return address


@pytest.fixture
def with_spark(spark_address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this test's home use the shared Spark server."""
    settings.cache_clear()
    monkeypatch.setenv("SPARK_REMOTE", spark_address)


@pytest.fixture
def spark_lake(spark_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The shared server's own home (what dbt parsed stays), with a lake of this test's own."""
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    use_home(spark_home, monkeypatch, lake=str(tmp_path / "lake"))
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def dill_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to load something with dill is refused, and listed here."""
    import dill

    tried: list[str] = []

    def refuse(*given: Any, **_: Any) -> None:
        tried.append(type(given[0]).__name__)
        raise AssertionError("a dill copy was loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(dill, name, refuse)
        monkeypatch.setattr(dill._dill, name, refuse)
    return tried
