"""Builds the Feast store: definitions from the registry, the online store's address, and sources at a release."""

from __future__ import annotations

import logging
import os
import pkgutil
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo import feast_internals
from plumbline import files
from plumbline.errors import PlumblineError, ServiceUnavailable
from plumbline.lake import live, spark
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureService, FeatureStore, FeatureView

NO_REDIS = f"{services.HOST}:1"
"""Where no Redis is: offline reads never call it, and an online read is refused at once."""

NO_OFFLINE_STORE = "feature_repo.no_offline_store.NoOfflineStore"
"""What a store reads offline from that is for online reads alone: nothing."""


class DefinitionError(PlumblineError):
    """A definition is not named as it must be, or a release has nothing that a service reads."""


def repository(product: Product) -> Path:
    """The folder of the product's definitions and of Feast's settings for them."""
    return ROOT / product.repository


def definitions(product: Product) -> Any:
    """The product's module of definitions, imported with Feast settled: its DEFINITIONS and source."""
    settle()
    return pkgutil.resolve_name(f"feature_repo.{product.name}.definitions")


def newest_service(product: Product, release: Release | None = None) -> FeatureService:
    """The service with the highest number in definitions.py whose tables the release has: what new models are trained
    on. A model in use names its own. Without a release it is the newest that asks for no live view, which any has.

    Raises DefinitionError for a service whose name does not end in `_vN`, and when the release has no service's tables.
    """
    defined = definitions(product).DEFINITIONS
    from feast import FeatureService

    services = [made for made in defined if isinstance(made, FeatureService)]
    there = product.views.values() if release is None else release.tables
    lacking = {view for view, table in product.view_tables.items() if table not in there}
    services = [s for s in services if lacking.isdisjoint(p.name for p in s.feature_view_projections)]
    if not services:
        where = f"whose tables release {release.release_id} has" if release else "at all"
        raise DefinitionError(f"{product.definitions} has no service {where}: new models are trained on one")
    return max(services, key=lambda service: _number(product, service.name))


def _number(product: Product, service: str) -> int:
    name, _, number = service.rpartition("_v")
    if not (name and number.isdecimal()):
        raise DefinitionError(
            f"{product.definitions}: the service {service!r} has no number to tell the newest by: its name must end in "
            f"_vN, as {product.name}_v2 does"
        )
    return int(number)


def service_name(product: Product, release: Release | None = None) -> str:
    """The name of the newest service."""
    return str(newest_service(product, release).name)


def service_inputs(product: Product) -> tuple[list[str], list[str]]:
    """The newest service's features: those that tables store, and those computed when the question is asked."""
    projections = newest_service(product).feature_view_projections
    stored = [field.name for p in projections if p.name in product.views for field in p.features]
    return stored, [field.name for p in projections if p.name not in product.views for field in p.features]


def features_by_service(product: Product) -> dict[str, list[str]]:
    """Each service in definitions.py with the features it gives, oldest first."""
    defined = definitions(product).DEFINITIONS
    from feast import FeatureService

    return {
        made.name: [field.name for p in made.feature_view_projections for field in p.features]
        for made in defined
        if isinstance(made, FeatureService)
    }


def on_demand(product: Product, rows: pd.DataFrame, service: str | None = None) -> pd.DataFrame:
    """Rows of the tables with what a service computes on demand, as if asked at each row's event_time; by default the
    newest service that asks for no live view."""
    defined = definitions(product)
    from feast.on_demand_feature_view import OnDemandFeatureView

    chosen = next((made for made in defined.DEFINITIONS if made.name == service), None) or newest_service(product)
    wanted = {projection.name for projection in chosen.feature_view_projections}
    asked = rows["event_time"].astype("datetime64[us, UTC]").astype("int64") // 1_000_000
    given = {**{name: rows[name].tolist() for name in rows.columns}, "request_time": asked.tolist()}
    computed: dict[str, Any] = {}
    for view in defined.DEFINITIONS:
        if isinstance(view, OnDemandFeatureView) and view.name in wanted:
            computed |= view.feature_transformation.udf(given)
    return rows.assign(**computed)


def open_store(product: Product, registry: Path | None = None, *, offline: str = NO_OFFLINE_STORE) -> FeatureStore:
    """The store with the applied definitions, whose functions are definitions.py's own, whatever the registry holds.

    It starts nothing: online reads need a Redis that is up already. `offline` is the type of Feast's offline store;
    see `at_release`.
    """
    feast_internals.run_only(_functions(product))
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    os.environ["FEAST_REGISTRY_PATH"] = str(registry or _registry(product))
    os.environ["FEAST_OFFLINE_STORE"] = offline
    try:
        os.environ["FEAST_REDIS_CONNECTION"] = online_store.connection_string(start=False)
    except ServiceUnavailable:
        os.environ["FEAST_REDIS_CONNECTION"] = NO_REDIS
    return FeatureStore(config=load_repo_config(repository(product), repository(product) / "feature_store.yaml"))


def _functions(product: Product) -> dict[str, Any]:
    """What the on-demand views in definitions.py compute with, by the function's name."""
    defined = definitions(product).DEFINITIONS
    from feast.on_demand_feature_view import OnDemandFeatureView

    functions = [view.feature_transformation.udf for view in defined if isinstance(view, OnDemandFeatureView)]
    return {function.__name__: function for function in functions}


def at_release(product: Product, release: Release, *, streams: bool = False) -> FeatureStore:
    """The store whose offline reads see a release: each view reads its table's Delta version there, and no other.

    It has a registry of its own, a copy in which the views' sources are pinned: Feast reads its registry anew at
    every call, so a source that is changed in memory alone would be lost. A feature that the release's table does not
    have yet is null there, so that going back to it leaves no newer value online. A view whose table the release does
    not name is not pinned, and cannot be read; nor are live views, unless `streams` asks for them too. Entities that do
    not count at the release are not seen.
    """
    spark.session()  # before Feast asks for one of its own
    apply(product)
    pinned = _registry(product).with_name(f"release-{release.release_id:06d}.db")
    shutil.copyfile(_registry(product), pinned)
    store = open_store(product, pinned, offline="spark")
    _quiet()
    views = product.view_tables if streams else product.views
    for name, table in ((name, table) for name, table in views.items() if table in release.tables):
        view = store.get_feature_view(name)
        relation = live.relation(product, release, _relation(view, table, release.version(table)))
        view.batch_source = definitions(product).source(table, relation)
        store.registry.apply_feature_view(view, store.project)
    return store


def _relation(view: FeatureView, table: str, version: int) -> str:
    """The table at a version, with a null for each of the view's features that came after it."""
    from feast.types import from_feast_to_pyarrow_type
    from pyspark.sql.pandas.types import from_arrow_type

    relation = lake.at(table, version)
    held = {field.name for field in lake.open_table(table, version).schema().fields}
    nulls = [
        f"CAST(NULL AS {from_arrow_type(from_feast_to_pyarrow_type(field.dtype)).simpleString()}) AS {field.name}"
        for field in view.features
        if field.name not in held
    ]
    return f"(SELECT *, {', '.join(nulls)} FROM {relation})" if nulls else relation


def apply(product: Product) -> bool:
    """`feast apply`, when the definitions or their settings changed since the last time. True if it did."""
    sources = (repository(product) / name for name in ("definitions.py", "feature_store.yaml"))
    digest, folder = files.sha256(*(path.read_bytes() for path in sources)), _registry(product).parent
    stamp = folder / "applied"
    with files.locked(folder / "apply.lock", wait=True):
        if stamp.exists() and stamp.read_text() == digest:
            return False
        open_store(product).apply(definitions(product).DEFINITIONS)
        files.write_whole(stamp, digest)
        return True


def open_here(product: Product) -> FeatureStore:
    """The store, in a home that may never have been applied to: a pod whose neighbour brought the rows online."""
    if not _registry(product).exists():
        apply(product)
    return open_store(product)


def _registry(product: Product) -> Path:
    return settings().home / "feast" / product.name / "registry.db"


def settle() -> None:
    """Feast without its habits: no usage statistics, no type checks, no word at every call that Spark is experimental.

    To be called before anything imports Feast.
    """
    os.environ["FEAST_USAGE"] = "False"
    _import_without_type_checks()
    _quiet()
    logging.getLogger("feast").setLevel(logging.WARNING)


def _quiet() -> None:
    """Silences Feast's warnings. Its modules put filters of their own in front when they are imported, and the offline
    store's is imported late: so this comes after them."""
    warnings.filterwarnings("ignore", message=".*is an experimental feature.*", category=RuntimeWarning)
    warnings.filterwarnings("ignore", message="Could not serialize pd.DataFrame.attrs", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"feast\..*")


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
