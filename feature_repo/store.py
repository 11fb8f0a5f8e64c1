"""Builds the Feast store: definitions from the registry, the online store's address, and sources at a release."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.errors import ServiceUnavailable
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore, FeatureView

REPO = ROOT / "feature_repo" / "churn"
VIEW = "customer_features"

NO_REDIS = f"{services.HOST}:1"
"""Where no Redis is: offline reads never call it, and an online read is refused at once."""


def service_name() -> str:
    """The FeatureService that new models are trained on: the newest in definitions.py. A model in use names its own."""
    settle()
    from feature_repo.churn.definitions import newest_service

    return str(newest_service().name)


def service_inputs() -> tuple[list[str], list[str]]:
    """The newest service's features: those that the table stores, and those computed when the question is asked."""
    settle()
    from feature_repo.churn.definitions import newest_service

    projections = newest_service().feature_view_projections
    stored = [field.name for p in projections if p.name == VIEW for field in p.features]
    return stored, [field.name for p in projections if p.name != VIEW for field in p.features]


def features_by_service() -> dict[str, list[str]]:
    """Each service in definitions.py with the features it gives, oldest first."""
    settle()
    from feast import FeatureService

    from feature_repo.churn.definitions import DEFINITIONS

    return {
        made.name: [field.name for p in made.feature_view_projections for field in p.features]
        for made in DEFINITIONS
        if isinstance(made, FeatureService)
    }


def on_demand(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table with what the newest service computes on demand, as if asked at each row's event_time."""
    settle()
    from feast.on_demand_feature_view import OnDemandFeatureView

    from feature_repo.churn.definitions import DEFINITIONS, newest_service

    wanted = {projection.name for projection in newest_service().feature_view_projections}
    asked = rows["event_time"].astype("datetime64[us, UTC]").astype("int64") // 1_000_000
    given = {**{name: rows[name].tolist() for name in rows.columns}, "request_time": asked.tolist()}
    computed: dict[str, Any] = {}
    for view in DEFINITIONS:
        if isinstance(view, OnDemandFeatureView) and view.name in wanted:
            computed |= view.feature_transformation.udf(given)
    return rows.assign(**computed)


def open_store(registry: Path | None = None) -> FeatureStore:
    """The store with the applied definitions. It starts nothing: online reads need a Redis that is up already."""
    settle()
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
    every call, so a source that is changed in memory alone would be lost. A feature that the release's table does not
    have yet is null there, so that going back to it leaves no newer value online.
    """
    spark.session()  # before Feast asks for one of its own
    apply()
    pinned = _registry().with_name(f"release-{release.release_id:06d}.db")
    shutil.copyfile(_registry(), pinned)
    store = open_store(pinned)
    from feature_repo.churn.definitions import customers_source

    view = store.get_feature_view(VIEW)
    view.batch_source = customers_source(_relation(view, release.version("features.customers")))
    store.registry.apply_feature_view(view, store.project)
    return store


def _relation(view: FeatureView, version: int) -> str:
    """The table at a version, with a null for each of the view's features that came after it."""
    from feast.types import from_feast_to_pyarrow_type
    from pyspark.sql.pandas.types import from_arrow_type

    relation = lake.at("features.customers", version)
    held = {field.name for field in lake.open_table("features.customers", version).schema().fields}
    nulls = [
        f"CAST(NULL AS {from_arrow_type(from_feast_to_pyarrow_type(field.dtype)).simpleString()}) AS {field.name}"
        for field in view.features
        if field.name not in held
    ]
    return f"(SELECT *, {', '.join(nulls)} FROM {relation})" if nulls else relation


def apply() -> bool:
    """`feast apply`, when the definitions or their settings changed since the last time. True if it did."""
    digest = files.sha256((REPO / "definitions.py").read_bytes(), (REPO / "feature_store.yaml").read_bytes())
    stamp = settings().home / "feast" / "applied"
    with files.locked(settings().home / "feast" / "apply.lock", wait=True):
        if stamp.exists() and stamp.read_text() == digest:
            return False
        settle()
        from feature_repo.churn.definitions import DEFINITIONS

        open_store().apply(DEFINITIONS)
        files.write_whole(stamp, digest)
        return True


def _registry() -> Path:
    return settings().home / "feast" / "registry.db"


def settle() -> None:
    """Feast without its habits: no usage statistics, no type checks, no word at every call that Spark is experimental.

    To be called before anything imports Feast.
    """
    os.environ["FEAST_USAGE"] = "False"
    _import_without_type_checks()
    from feast.infra.offline_stores.contrib.spark_offline_store import spark, spark_source  # noqa: F401

    # Only now: these modules put filters of their own in front when they are imported.
    warnings.filterwarnings("ignore", message=".*is an experimental feature.*", category=RuntimeWarning)
    warnings.filterwarnings("ignore", message="Could not serialize pd.DataFrame.attrs", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"feast\..*")
    logging.getLogger("feast").setLevel(logging.WARNING)


def _import_without_type_checks() -> None:
    """Imports Feast without its typeguard decorators, which rewrite a dozen modules at import (4 of 6 CPU-seconds)
    and check every call after that. They have no other effect; nothing else in the process loses them."""
    if "feast" in sys.modules:
        return
    import typeguard

    checked = typeguard.typechecked
    unchecked: Any = lambda target=None, **options: target if target is not None else lambda given: given  # noqa: E731
    typeguard.typechecked = unchecked
    try:
        with warnings.catch_warnings(action="ignore"):  # Spark is experimental, says Feast; it is not used here
            import feast  # noqa: F401
            from feast.infra.offline_stores.contrib.spark_offline_store import spark_source  # noqa: F401
            from feast.infra.online_stores import redis  # noqa: F401
    finally:
        typeguard.typechecked = checked
