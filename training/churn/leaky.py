"""A dataset's leaky twin: the mistake that point-in-time joins exist for, made on purpose and measured.

The same customers, days, labels and split; but every observation takes the customer's newest feature row of the
release, as a plain join on the customer does. It is scored by the same model as the honest one, judged by the leakage
gates, and never logged or registered.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline import observed, provenance, verdict
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.churn import CHURN, FEATURES
from training import canonical, datasets, evaluate
from training.churn import activity, dataset, model, snapshots
from training.datasets import Dataset
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STAGE = "leaky_twin"
SHOWN = {"roc_auc": "ROC-AUC ↑", "pr_auc": "PR-AUC ↑", "log_loss": "log loss ↓", "brier": "Brier ↓"}


def build(release: int | None = None) -> dict[str, Any]:
    """Builds and scores the twin of a release's dataset (default: the release in force), or finds it built before.

    Gives the twin's dataset.json; `scores` holds the metrics of the honest dataset and of the twin. Raises
    TrainingError when the honest one was not built.
    """
    place = trainings.place(CHURN, release, leaky=True)
    with datasets.working(CHURN, STAGE):
        honest = datasets.load(replace(place, leaky=False))
        found = objects.read_json(place.key(trainings.ABOUT))
        made_from = (honest.about["content_hash"], provenance.code_sha())
        if found is not None and (found["twin_of"], found["code_sha"]) == made_from:
            return {"state": "unchanged", **found}
        found = stage.recorded(CHURN, place.head(STAGE), lambda: _build(honest, place))
        objects.replace_json(place.key(trainings.ABOUT), found)
        return {"state": "done", **found}


def twin(honest: Dataset) -> Dataset:
    """The twin of a dataset, in memory."""
    rows = _newest(honest, _version(honest, "data_version"))
    return Dataset({**honest.about, "content_hash": canonical.content_hash(rows, snapshots.KEY)}, rows)


def tell(found: dict[str, Any], judged: dict[str, Any]) -> None:
    """Prints both scores side by side, and what the gates said of the twin."""
    from plumbline.display import terminal

    console = terminal.console(120)
    told = terminal.table(f"{found['dataset_id']}: what point-in-time joins are for", "", *SHOWN.values())
    for name, metrics in found["scores"].items():
        told.add_row(name.replace("_", " "), *(f"{metrics[shown]:.4f}" for shown in SHOWN))
    console.print(told)
    for name, gate in verdict.read(judged["gates"], found["dataset_id"]).items():
        color = "green" if gate.passed else "red"
        console.print(f"  [{color}]{gate.verdict}[/{color}] {name}" + "".join(f"\n    {f}" for f in gate.failed[:3]))
    console.print("  The twin is never registered; `plumb train` takes no dataset that a gate failed on.")


def _build(honest: Dataset, place: Place) -> dict[str, Any]:
    made = twin(honest)
    objects.replace_bytes(place.key(trainings.ROWS), canonical.to_parquet(made.rows))
    scores = {"point_in_time": _scored(honest), "leaky_twin": _scored(made)}
    dataset_id = f"{honest.about['dataset_id']}-leaky"
    observed.wrote(CHURN.dataset, dataset_id, len(made.rows))
    aucs = [metrics["roc_auc"] for metrics in scores.values()]
    return {
        **made.about,
        "dataset_id": dataset_id,
        "twin_of": honest.about["content_hash"],
        "scores": scores,
        "message": f"ROC-AUC {aucs[0]:.4f} point in time, {aucs[1]:.4f} with every customer's newest features",
    }


def _version(honest: Dataset, name: str) -> int:
    """The Delta version in a name of dataset.json."""
    return int(str(honest.about[name]).rpartition("=")[2])


def _newest(honest: Dataset, version: int) -> pa.Table:
    """The dataset's rows with each customer's newest features; what depends on the request's time is computed anew."""
    from feature_repo import store as feature_store

    newest = _newest_rows(version)
    keys = honest.rows.select(["event_timestamp", "customer_id", "request_time", "churned", "is_test"]).to_pandas()
    rows: pd.DataFrame = keys.merge(newest, on="customer_id", how="left", validate="many_to_one")
    if activity.PIN in honest.about:
        live = activity.newest(_version(honest, activity.PIN))
        live = live[["customer_id", *(name for name in live.columns if name not in rows.columns)]]
        rows = rows.merge(live, on="customer_id", how="left", validate="many_to_one")
    asked = rows.assign(event_time=rows["event_timestamp"])
    computed = feature_store.on_demand(CHURN, asked, str(honest.about["feature_service"]))
    schema = dataset.schema({name: honest.rows.schema.field(name).type for name in honest.features})
    return canonical.table(computed, schema, snapshots.KEY)


def _newest_rows(version: int) -> pd.DataFrame:
    """Each customer's row of the newest snapshot. Raises TrainingError when the table has none."""
    days = snapshots.snapshot_days(version)
    if not days:
        raise TrainingError(f"{FEATURES}@v{version} has no snapshots")
    table = lake.open_table(FEATURES, version)
    found = table.to_pyarrow_table(filters=[("snapshot_date", "in", [str(max(days))])])
    frame: pd.DataFrame = found.to_pandas()
    newest = frame.sort_values("created_at", kind="stable").drop_duplicates("customer_id", keep="last")
    return newest.drop(columns=["event_time", "created_at", "snapshot_date", "release_id"])


def _scored(data: Dataset) -> dict[str, float]:
    observed = date.fromisoformat(data.about["observations"]["test"])
    say(f"scoring {len(data.rows):,} rows, tested on {observed}")
    training, test = data.part(test=False), data.part(test=True)
    booster = model.fit(training, data.features, model.Params())
    return evaluate.metrics(test["churned"].to_numpy(), model.probability(booster, test))
