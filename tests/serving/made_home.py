"""A home with real parts for a whole module: Redis, Feast, an MLflow registry with a small model. No Spark.

Fixtures; tests/conftest.py imports them, and it alone: each import of a session's fixture makes a home of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plumbline.servers import online_store, services
from plumbline.settings import settings
from tests.serving.made_up_customers import NOW, apply_definitions, publish_release, put_online, register_model


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with features online and a challenger registered, made once; its servers end with the test run."""
    home = tmp_path_factory.mktemp("serving")
    with _at(home):
        online_store.url()
        apply_definitions()
        put_online()
        publish_release()
        register_model()
    yield home
    with _at(home):
        services.stop_all()


@pytest.fixture(scope="module")
def serving_home(made_home: Path) -> Iterator[Path]:
    """The made home as the home of a whole module."""
    with _at(made_home):
        yield made_home


@contextmanager
def _at(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(home))
        patch.setenv("PLUMBLINE_NOW", NOW.isoformat())
        settings.cache_clear()
        yield
    settings.cache_clear()


@pytest.fixture
def _home_settings(serving_home: Path) -> None:
    """Other tests in between may have read other settings."""
    settings.cache_clear()
