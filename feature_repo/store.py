"""Builds the Feast store: definitions from the registry, the online store's address, and sources at a release."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import files, lake, online_store, services, spark
from plumbline.errors import ServiceUnavailable
from plumbline.releases import Release
from plumbline.settings import ROOT, settings

if TYPE_CHECKING:
    from feast import FeatureStore

REPO = ROOT / "feature_repo"
SERVICE = "churn_v1"
"""The FeatureService that training uses for a new model. A model in use names its own."""

VIEW = "customer_features"

NO_REDIS = f"{services.HOST}:1"
"""Where no Redis is: offline reads never call it, and an online read is refused at once."""


def service_name() -> str:
    """The FeatureService that new models are trained on."""
    return SERVICE


def open_store(registry: Path | None = None) -> FeatureStore:
    """The store with the applied definitions. It starts nothing: online reads need a Redis that is up already."""
    _settle()
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    os.environ["FEAST_REGISTRY_PATH"] = str(registry or _registry())
    try:
        os.environ["FEAST_REDIS_CONNECTION"] = online_store.connection_string(start=False)
    except ServiceUnavailable:
        os.environ["FEAST_REDIS_CONNECTION"] = NO_REDIS
    return FeatureStore(config=load_repo_config(REPO, REPO / "feature_store.yaml"))


def at_release(release: Release) -> FeatureStore:
    """The store whose offline reads see a release: `customer_features` reads its Delta version, and no other.

    It has a registry of its own, a copy in which that view's source is pinned: Feast reads its registry anew at
    every call, so a source that is changed in memory alone would be lost.
    """
    spark.session()  # before Feast asks for one of its own
    apply()
    pinned = _registry().with_name(f"release-{release.release_id:06d}.db")
    shutil.copyfile(_registry(), pinned)
    store = open_store(pinned)
    from feature_repo.definitions import customers_source

    view = store.get_feature_view(VIEW)
    view.batch_source = customers_source(lake.at("features.customers", release.version("features.customers")))
    store.registry.apply_feature_view(view, store.project)
    return store


def apply() -> bool:
    """`feast apply`, when the definitions or their settings changed since the last time. True if it did."""
    digest = files.sha256((REPO / "definitions.py").read_bytes(), (REPO / "feature_store.yaml").read_bytes())
    stamp = settings().home / "feast" / "applied"
    with files.locked(settings().home / "feast" / "apply.lock", wait=True):
        if stamp.exists() and stamp.read_text() == digest:
            return False
        _settle()
        from feature_repo.definitions import DEFINITIONS

        open_store().apply(DEFINITIONS)
        files.write_whole(stamp, digest)
        return True


def _registry() -> Path:
    return settings().home / "feast" / "registry.db"


def _settle() -> None:
    """Feast's own habits: no usage statistics, and no word at every call that Spark is experimental."""
    os.environ["FEAST_USAGE"] = "False"
    from feast.infra.offline_stores.contrib.spark_offline_store import spark, spark_source  # noqa: F401

    # Only now: these modules put filters of their own in front when they are imported.
    warnings.filterwarnings("ignore", message=".*is an experimental feature.*", category=RuntimeWarning)
    warnings.filterwarnings("ignore", message="Could not serialize pd.DataFrame.attrs", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"feast\..*")
    logging.getLogger("feast").setLevel(logging.WARNING)
