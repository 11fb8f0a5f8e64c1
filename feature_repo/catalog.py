"""What there is to know of a feature: its definition, where it comes from, who uses it, how it was by release."""

from __future__ import annotations

import difflib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo import store
from feature_repo.churn.jobs import activity
from feature_repo.churn.jobs.customers import READS, SQL, TABLE
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.lake.distributions import describe, psi
from plumbline.lineage import column_lineage
from plumbline.registry import registered_models
from plumbline.settings import ROOT
from plumbline.state import releases
from plumbline.state.releases import Release
from products.churn import CHURN

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRODUCT = CHURN.name
INPUTS = {**READS, "base": "carried_on", "snapshots": "snapshots"}
"""What customers.sql reads: three marts, the base release's newest snapshot, and the days that a run computes."""


class CatalogError(PlumblineError):
    """There is no such feature or customer."""


@dataclass(frozen=True)
class Feature:
    """One feature as definitions.py has it; `view` is a feature view, or an on-demand one. `live` ones come with the
    order stream; of two features of one name the live one has its view before the name."""

    name: str
    type: str
    description: str
    view: str
    on_demand: bool
    live: bool
    services: list[str]

    @property
    def column(self) -> str:
        """Its name in its table."""
        return self.name.rpartition(".")[2]

    @property
    def sql(self) -> Path:
        """The file that defines it, where it is stored."""
        return activity.SQL if self.live else SQL


def features() -> list[Feature]:
    """All features, stored ones first, in the order of the definitions."""
    store.settle()
    from feast import FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    from feature_repo.churn.definitions import DEFINITIONS

    services = [made for made in DEFINITIONS if isinstance(made, FeatureService)]
    found: dict[str, Feature] = {}
    for view in DEFINITIONS:
        if isinstance(view, FeatureView | OnDemandFeatureView):
            asked = isinstance(view, OnDemandFeatureView)
            for item in view.features:
                name = f"{view.name}.{item.name}" if item.name in found else item.name
                given = {
                    service.name: [field.name for field in projection.features]
                    for service in services
                    for projection in service.feature_view_projections
                    if projection.name == view.name
                }
                theirs = [service for service, names in given.items() if item.name in names]
                told = item.description or (view.description if asked else "")
                live = view.name in CHURN.streams
                found[name] = Feature(name, str(item.dtype).lower(), told, view.name, asked, live, theirs)
    return sorted(found.values(), key=lambda feature: feature.on_demand)


def listed() -> list[dict[str, Any]]:
    """Every feature, with its missing share and age at the release in force (None for on-demand and live ones)."""
    release = releases.required(PRODUCT)
    columns = _newest(release, [each.name for each in features() if not (each.on_demand or each.live)])
    age = (clock.now() - clock.end_of(release.as_of)).total_seconds()
    return [
        {
            **feature.__dict__,
            "release_id": release.release_id,
            "missing": describe(columns[feature.name])["missing"] if feature.name in columns else None,
            "age_seconds": None if feature.on_demand or feature.live else age,
        }
        for feature in features()
    ]


def shown(name: str) -> dict[str, Any]:
    """One feature: definition, services, models, its SQL, and its lineage back to raw columns.

    Raises CatalogError for an unknown name.
    """
    feature = known(name)
    models = [
        str(model) for model in registered_models.versions(CHURN.model) if model.feature_service in feature.services
    ]
    if feature.on_demand:
        definition, lineage = _on_demand(feature)
    else:
        definition = column_lineage.outputs(feature.sql.read_text()).get(feature.column, "")
        lineage = [_trace(feature)]
    return {
        **feature.__dict__,
        "models": models,
        "definition": definition,
        "lineage": [column_lineage.tree(step) for step in lineage],
        "roots": sorted(set().union(*(step.roots() for step in lineage))),
    }


def history(name: str, last: int = 10) -> dict[str, Any]:
    """A feature at each of the last releases (its newest snapshot there), and the commits that changed its SQL.

    PSI is against the release before. Raises CatalogError for an unknown name, an on-demand feature or a live one.
    """
    feature = _stored(name)
    if feature.live:
        raise CatalogError(f"{name} changes with each order: no snapshots of it could be held against each other")
    points: list[dict[str, Any]] = []
    before: NDArray[Any] | None = None
    for number in releases.numbers(PRODUCT)[-last:]:
        release = releases.read(PRODUCT, number)
        try:
            values = _newest(release, [name]).get(name)
        except lake.LakeError:  # retention or an erasure took it
            values = None
        about = {"release_id": number, "as_of": str(release.as_of), "version": release.version(TABLE)}
        if values is None or not len(values):
            points.append({**about, "rows": 0, "psi": None})
            continue
        shift = psi(before, values) if before is not None else None
        points.append({**about, **describe(values), "psi": shift})
        before = values
    return {"name": name, "releases": points, **_commits(feature)}


def of_customer(name: str, customer: int) -> list[dict[str, Any]]:
    """A customer's values of a feature by snapshot, at the release in force. Raises CatalogError when it has none, and
    for a live feature."""
    import pyarrow.compute as pc

    if _stored(name).live:
        raise CatalogError(
            f"{name} has no snapshots: {activity.TABLE} has a row for each micro-batch of the customer's"
        )
    release = releases.required(PRODUCT)
    table = lake.open_table(TABLE, release.version(TABLE)).to_pyarrow_dataset()
    if name not in table.schema.names:
        raise CatalogError(f"release {release.release_id} does not have {name} yet: the next daily run computes it")
    columns = ["snapshot_date", name, *(["release_id"] if name != "release_id" else [])]
    found = table.to_table(columns=columns, filter=pc.field("customer_id") == customer)
    if not found.num_rows:
        raise CatalogError(f"release {release.release_id} has no snapshot of customer {customer}")
    rows: list[dict[str, Any]] = found.sort_by("snapshot_date").to_pylist()
    return rows


def known(name: str) -> Feature:
    """The feature of that name. Raises CatalogError that says which was meant."""
    everything = {feature.name: feature for feature in features()}
    if name in everything:
        return everything[name]
    close = difflib.get_close_matches(name, everything, 1, 0.5)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(everything)}"
    raise CatalogError(f"no feature {name!r}: {hint}")


def _stored(name: str) -> Feature:
    feature = known(name)
    if feature.on_demand:
        raise CatalogError(f"{name} is computed when the question is asked: no release holds values of it")
    return feature


def _newest(release: Release, names: list[str]) -> dict[str, NDArray[Any]]:
    """The values of a release's newest snapshot, NaN for missing; a column that it does not have is left out."""
    import numpy as np
    import pyarrow.compute as pc

    table = lake.remaining(TABLE, release.version(TABLE)).to_pyarrow_dataset()
    held = [name for name in names if name in table.schema.names]
    found = table.to_table(columns=held, filter=pc.field("snapshot_date") == release.as_of).to_pandas()
    return {name: found[name].to_numpy(dtype="float64", na_value=np.nan) for name in held}


def _trace(feature: Feature) -> column_lineage.Step:
    if feature.live:
        return column_lineage.trace(feature.column, feature.sql, activity.NAMES, {activity.EVENTS: list(activity.READ)})
    release = releases.in_force(PRODUCT)
    pinned = {table: release.tables[table] for table in CHURN.raw if release and table in release.tables}
    raw = {table: [f.name for f in lake.open_table(table, pin).schema().fields] for table, pin in pinned.items()}
    try:
        return column_lineage.trace(feature.name, SQL, INPUTS, raw)
    except ValueError as error:
        raise CatalogError(f"definitions.py names {feature.name}, but {error}") from None


def _on_demand(feature: Feature) -> tuple[str, list[column_lineage.Step]]:
    """The function's text, and the lineage of the stored columns that it names."""
    from feature_repo.churn import definitions

    view = getattr(definitions, feature.view)
    text: str = view.feature_transformation.udf_string
    return text, [_trace(item) for item in features() if not item.on_demand and f'"{item.name}"' in text]


def _commits(feature: Feature) -> dict[str, Any]:
    """The commits that changed the lines of customers.sql that lead to the feature, newest first; none without git."""
    places = [place for place in _places(_trace(feature)) if place.startswith(str(SQL.relative_to(ROOT)))]
    ranges = [
        f"-L{line},{line}:{file}" for file, _, line in (place.partition(":") for place in places) if line.isdecimal()
    ]
    uncommitted = bool(_git("status", "--porcelain", "--", str(SQL)))
    chosen = ["--", str(SQL)] if uncommitted or not ranges else ["-s", *ranges]  # lines that moved cannot be followed
    told = _git("log", "--format=%h%x09%as%x09%s", *chosen)
    lines = [line.split("\t", 2) for line in told.splitlines() if line.count("\t") >= 2]
    return {
        "commits": [{"commit": commit, "on": on, "subject": subject} for commit, on, subject in lines],
        "uncommitted": uncommitted,
    }


def _places(step: column_lineage.Step) -> list[str]:
    found = [step.place] if step.place else []
    for below in step.inputs:
        found += [place for place in _places(below) if place not in found]
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout
