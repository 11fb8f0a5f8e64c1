"""The image dataset of a release at a cutoff: which images were clean, what was known of them, and how they are split.

Features come through Feast, point in time; the label is as it was known at the cutoff (`labels`); near duplicates are
on one side of the split (`split`). What Feast gives is held against the table itself, read another way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from plumbline import clock, provenance
from plumbline import observed as seen
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.state import objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.state.trainings import Place
from products.images import CLEAN, IMAGES, LABELS, RAW
from training import canonical, point_in_time
from training.datasets import working
from training.errors import TrainingError
from training.images import labels, split, versions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STAGE = "dataset"
KEY = canonical.key(IMAGES)
ABOUT_FEATURES = ("extraction_model", "preprocessing_version", "clean_sha256")
FEATURE = "embedding"


@dataclass(frozen=True)
class Pins:
    """The versions of the tables that a dataset is made from; `features` is the table of its feature service's view."""

    features: str
    versions: dict[str, int]

    def named(self) -> dict[str, str]:
        """As dataset.json and MLflow name them."""
        tables = {"data_version": self.features, "labels_version": LABELS, "clean_version": CLEAN, "raw_version": RAW}
        return {name: f"delta:{table}@v={self.versions[table]}" for name, table in tables.items()}


def schema() -> pa.Schema:
    """The dataset's columns."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("event_timestamp", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("group_id", pa.string(), nullable=False),
            pa.field(FEATURE, pa.list_(pa.float32()), nullable=False),
        ]
    )


def place(release: int | None = None, service: str | None = None, cutoff: date | None = None) -> Place:
    """Where a dataset lies: of a release (default: the one in force), a feature service and a cutoff of its own.

    Raises TrainingError for a service that is not defined, or a cutoff behind the release's last day.
    """
    from feature_repo import store as feature_store

    found = releases.required(IMAGES.name, release)
    if service is not None and service not in (known := feature_store.features_by_service(IMAGES)):
        raise TrainingError(f"no feature service {service!r}: there are {', '.join(known)}")
    if cutoff is not None and cutoff > found.as_of:
        raise TrainingError(
            f"--cutoff {cutoff}: release {found.release_id} reaches {found.as_of}, expected that day or an earlier one"
        )
    other = service if service != feature_store.service_name(IMAGES, found) else None
    return Place(IMAGES, found.release_id, other, cutoff if cutoff != found.as_of else None)


def table_of(service: str) -> str:
    """The table of embeddings that a feature service reads."""
    from feature_repo import store as feature_store

    defined = feature_store.definitions(IMAGES).DEFINITIONS
    from feast import FeatureService

    (one,) = (made for made in defined if isinstance(made, FeatureService) and made.name == service)
    (view,) = {projection.name for projection in one.feature_view_projections}
    return IMAGES.views[view]


def build(where: Place) -> dict[str, Any]:
    """Builds a dataset and pushes it to DVC's remote, or finds that done by the same code already.

    Raises TrainingError when there is nothing to learn from, or what Feast gave cannot be trusted; ServiceUnavailable
    without DVC or its remote.
    """
    release = releases.read(IMAGES.name, where.release_id)
    with working(IMAGES, STAGE):
        about = objects.read_json(where.key(trainings.ABOUT))
        if (
            about is not None
            and about["code_sha"] == provenance.code_sha()
            and objects.read(where.key(trainings.ROWS))
            and versions.is_published(where)
        ):
            return told("unchanged", about)
        about = stage.recorded(IMAGES, where.head(STAGE), lambda: _build(release, where))
        objects.replace_json(where.key(trainings.ABOUT), about)
        return told("done", about)


def _build(release: Release, where: Place) -> dict[str, Any]:
    from feature_repo import store as feature_store

    cutoff = clock.end_of(where.cutoff or release.as_of)
    service = where.service or feature_store.service_name(IMAGES, release)
    tables = (table_of(service), LABELS, CLEAN, RAW)
    pins = Pins(tables[0], {table: release.version(table) for table in tables})
    found = observed(pins, release.rejected, cutoff)
    _refuse_what_cannot_be_learnt(*_classes(found.rows))  # in seconds; some may yet lack an embedding
    store = feature_store.at_release(IMAGES, release)
    say(f"point-in-time join of {service}: {len(found.rows):,} images at {cutoff:%F %H:%M} UTC")
    answer = _joined(store, service, pins, found.rows)
    stored = embeddings(pins, cutoff)
    rows, facts = with_features(found.rows, answer, stored, pins)
    about, content = described(
        where,
        rows,
        {
            **found.counts,
            **facts,
            **pins.named(),
            "cutoff_timestamp": cutoff.isoformat(),
            "as_of": str(release.as_of),
            "feature_service": service,
            "rejected_batches": release.rejected,
        },
    )
    objects.replace_bytes(where.key(trainings.ROWS), content)
    versions.publish(where, about["dataset_id"], about, content)
    return about


def described(where: Place, rows: pd.DataFrame, facts: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What dataset.json says of a dataset, and its rows as a file; `facts` is what its making alone knows."""
    table = canonical.table(rows, schema(), KEY)
    digest = canonical.content_hash(table, KEY)
    cutoff = datetime.fromisoformat(facts["cutoff_timestamp"])
    dataset_id = f"{versions.PREFIX}{cutoff:%Y%m%dT%H%M%SZ}_{digest.removeprefix('sha256:')[:12]}"
    dataset_id += "-leaky" if where.leaky else ""
    counts = {side: int((rows["split"] == side).sum()) for side in split.SIDES}
    classes, by_class = _classes(rows)
    _refuse_what_cannot_be_learnt(classes, by_class)
    untested = [name for name in classes if not by_class["test"][name]]
    about = {
        "message": f"{dataset_id}: {counts['train']:,} images to train on, {counts['val']:,} to validate, "
        f"{counts['test']:,} to test, of {len(classes)} classes"
        + (f"; no image to test with shows {', '.join(untested)}: nothing measures it" if untested else ""),
        "dataset_id": dataset_id,
        "content_hash": digest,
        "split_counts": counts,
        "classes": classes,
        "class_counts": {side: {name: by_class[side][name] for name in classes} for side in split.SIDES},
        "groups": int(rows["group_id"].nunique()),
        "release": where.release_id,
        "release_id": where.release_id,
        "service": where.service,
        "cutoff": str(where.cutoff) if where.cutoff else None,
        "features": [FEATURE],
        "seed": split.SEED,
        "lock_hash": provenance.lock_hash(),
        **facts,
    }
    seen.wrote(IMAGES.dataset, dataset_id, len(table))
    return about, canonical.to_parquet(table)


@dataclass(frozen=True)
class Observed:
    """The images that a dataset is of, with label, split and group, and how many were left out and why."""

    rows: pd.DataFrame
    counts: dict[str, Any]


def observed(pins: Pins, rejected: list[str], cutoff: datetime) -> Observed:
    """Who is in the dataset: clean images known by the cutoff that had a label by then, each with its side.

    Rows of rejected batches do not count. Raises TrainingError when there are none.
    """
    import pandas as pd

    clean = _read(pins, CLEAN, ["image_id", "state", "group_id", "event_time", "clean_sha256", "cleaning_version"])
    raw = _read(pins, RAW, ["image_id", "event_time", "label_at_ingestion", "batch_id"])
    raw = raw[~raw["batch_id"].isin(rejected)].sort_values("event_time", kind="stable").drop_duplicates("image_id")
    statements = lake.open_table(LABELS, pins.versions[LABELS]).to_pyarrow_table(columns=list(labels.COLUMNS))
    known = labels.known(_batches(statements, rejected), cutoff)
    kept = clean[(clean["state"] == "clean") & (clean["event_time"] <= cutoff)]
    kept = kept[kept["image_id"].isin(set(raw["image_id"]))]
    label = kept["image_id"].map(known)
    rows = kept.assign(label=label, split=split.sides(raw, kept))
    rows = rows.assign(event_timestamp=pd.Timestamp(cutoff).as_unit("us"))[label.notna()]
    if rows.empty:
        raise TrainingError(
            f"no clean image of {len(clean):,} has a label by {cutoff:%F %H:%M} UTC: label some, or take a later cutoff"
        )
    (cleaning,) = kept["cleaning_version"].unique() if kept["cleaning_version"].nunique() == 1 else (None,)
    if cleaning is None:
        raise TrainingError(f"{CLEAN}@v{pins.versions[CLEAN]} mixes cleaning versions: run `plumb images clean` again")
    counts = {"images_without_label": int(label.isna().sum()), "cleaning_version": str(cleaning)}
    return Observed(rows.sort_values(list(KEY)).reset_index(drop=True), counts)


def embeddings(pins: Pins, cutoff: datetime) -> pd.DataFrame:
    """The newest embedding of each image that was known by the cutoff, by image_id; straight from the table."""
    names = ["image_id", "event_time", "created_at", FEATURE, *ABOUT_FEATURES]
    frame = _read(pins, pins.features, names)
    known = frame[frame["event_time"] <= cutoff].sort_values(["event_time", "created_at"], kind="stable")
    return known.drop_duplicates("image_id", keep="last").set_index("image_id")


def with_features(
    rows: pd.DataFrame, answer: pd.DataFrame, stored: pd.DataFrame, pins: Pins
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows with Feast's embeddings, and what made them; images without any are left out and counted.

    Raises TrainingError when an embedding is not the one that the table holds, is of another picture than the clean
    one, or when they were made in several ways.
    """
    import numpy as np

    there = answer[FEATURE].notna().to_numpy()
    pinned = f"{pins.features}@v{pins.versions[pins.features]}"
    if there.sum() != rows["image_id"].isin(stored.index).sum() or not there.any():
        raise TrainingError(
            f"Feast gave {there.sum():,} embeddings of {len(rows):,} images, {pinned} holds "
            f"{rows['image_id'].isin(stored.index).sum():,} of them: run `plumb images features` and release it"
        )
    kept = rows[there].reset_index(drop=True)
    own = stored.loc[kept["image_id"]]
    given, held = (np.stack(list(column)).astype(np.float32) for column in (answer[FEATURE][there], own[FEATURE]))
    wrong = (given != held).any(axis=1)
    if wrong.any():
        raise TrainingError(
            f"Feast gave {int(wrong.sum()):,} images another embedding than {pinned} has for that moment, the first "
            f"{kept['image_id'][int(wrong.argmax())]}: a feature from another moment leaked in"
        )
    other = (kept["clean_sha256"].to_numpy() != own["clean_sha256"].to_numpy()).nonzero()[0]
    if len(other):
        raise TrainingError(
            f"{pinned}: {len(other):,} embeddings are of another picture than the clean one, the first of image "
            f"{kept['image_id'][other[0]]}: run `plumb images features` and release it"
        )
    made = {name: sorted(own[name].unique()) for name in ("extraction_model", "preprocessing_version")}
    if several := {name: values for name, values in made.items() if len(values) > 1}:
        raise TrainingError(f"{pinned} mixes embeddings made in several ways: {several}; give each a table of its own")
    facts = {**{name: str(values[0]) for name, values in made.items()}, "images_without_embedding": int((~there).sum())}
    return kept.assign(**{FEATURE: list(given)}), facts


def told(state: str, about: dict[str, Any]) -> dict[str, Any]:
    """What the stage says."""
    names = ("dataset_id", "release_id", "data_version", "content_hash", "cutoff_timestamp", "code_sha")
    made = ("extraction_model", "preprocessing_version", "cleaning_version")
    return {
        "state": state,
        "what": about["message"],
        "versions": {name: about[name] for name in (*names, *made)},
        "metrics": {name: about[name] for name in ("split_counts", "images_without_label", "images_without_embedding")},
        "seconds": about["seconds"],
    }


def _joined(store: Any, service: str, pins: Pins, rows: pd.DataFrame) -> pd.DataFrame:
    from plumbline.lake.spark import session

    question = rows[["image_id", "event_timestamp"]]
    naive = question.assign(event_timestamp=question["event_timestamp"].dt.tz_localize(None))
    asked = session().createDataFrame(naive)
    version = pins.versions[pins.features]
    found = point_in_time.historical(store, service, pins.features, version, asked)
    return point_in_time.aligned(found, question, KEY)


def _classes(rows: pd.DataFrame) -> tuple[list[str], dict[str, Counter[str]]]:
    """The classes, and how many rows of each are on each side."""
    by_class = {side: Counter(rows[rows["split"] == side]["label"]) for side in split.SIDES}
    return sorted(rows["label"].unique()), by_class


def _refuse_what_cannot_be_learnt(classes: list[str], by_class: dict[str, Counter[str]]) -> None:
    """Raises TrainingError unless there are two classes, each among the images to train on, and images to test."""
    if len(classes) < 2:
        raise TrainingError(f"all images show {', '.join(classes)}: a classifier needs two classes or more")
    if lacking := [name for name in classes if not by_class["train"][name]]:
        raise TrainingError(
            f"no image to train on shows {', '.join(lacking)}: of so few images all are on the other sides; bring "
            f"{split.TEST + split.VAL + 1} or more of that class, or label them as another one"
        )
    if empty := [side for side in split.SIDES if not by_class[side]]:
        raise TrainingError(f"no image is on the side {', '.join(empty)}: bring more images ({split.BLOCK} a class)")


def _read(pins: Pins, table: str, names: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = lake.open_table(table, pins.versions[table]).to_pyarrow_table(columns=names).to_pandas()
    return frame


def _batches(statements: pa.Table, rejected: list[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return statements.filter(pc.invert(pc.is_in(statements["batch_id"], pa.array(rejected, pa.string()))))
