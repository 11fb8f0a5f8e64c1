"""The report: a page a run under `<home>/report/`, made from the ledger, the releases and what training left there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files, verdict
from plumbline.display import figures, page
from plumbline.lake import distributions
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import ledger, objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from serving.rollout import page as rollout_page
from serving.rollout import state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = {"roc_auc": "ROC-AUC ↑", "pr_auc": "PR-AUC ↑", "log_loss": "log loss ↓", "brier": "Brier ↓"}
MODELS = {"": "xgboost", "baseline_bgnbd_": "BG/NBD", "baseline_recency_": "days since last order"}
FEATURES = "features.customers"
NOT_FEATURES = {"customer_id", "event_time", "snapshot_date", "created_at", "release_id"}
STATES = {"COMPLETE": "good", "START": "second", "FAIL": "bad", "GATE_FAILED": "bad"}


@dataclass
class Run:
    """One run of the daily pipeline, and the training on its release: the newest event of each stage."""

    run_id: str
    as_of: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    release: Release | None = None

    @property
    def file(self) -> str:
        return f"{self.run_id}.html"

    @property
    def seconds(self) -> float:
        return sum(float(event.get("seconds", 0)) for event in self.stages.values())

    @property
    def stopped(self) -> dict[str, Any] | None:
        """The event of the stage that ended it, None for a run that is whole or under way."""
        return next((e for e in self.stages.values() if e["state"] in ("FAIL", "GATE_FAILED")), None)

    @property
    def gates(self) -> dict[str, Verdict]:
        return {gate: found for event in self.stages.values() for gate, found in verdict.of_event(event).items()}


def write(product: Product) -> Path:
    """Writes the index, the newest run's page and those that are older than their run; gives the index's path."""
    folder = settings().home / "report" / product.name
    found = runs(product)
    for run in found:
        if run is found[-1] or _older(folder / run.file, run):
            _write_run(product, folder / run.file, run, newest=run is found[-1])
    rolled_out = rollout_page.write(product) if state.keys(product) else None
    return page.write(folder / "index.html", "runs.html", runs=found[::-1], states=STATES, rolled_out=rolled_out)


def runs(product: Product) -> list[Run]:
    """All daily runs that the ledger knows, oldest first, each with its release's training."""
    published = {
        release.run_id: release for release in (releases.read(product.name, n) for n in releases.numbers(product.name))
    }
    found: dict[str, Run] = {}
    training: dict[int, dict[str, dict[str, Any]]] = {}
    for event in ledger.events(product.name):
        run_id, stage = event["run_id"], event["stage"]
        if stage in product.daily_stages:
            run = found.setdefault(run_id, Run(run_id, event.get("as_of", ""), release=published.get(run_id)))
            _newest(run.stages, event)
        elif (number := event.get("release_id")) is not None:
            _newest(training.setdefault(int(number), {}), event)
    for run in found.values():
        if run.release is not None:
            run.stages.update(training.get(run.release.release_id, {}))
    return list(found.values())


def _older(path: Path, run: Run) -> bool:
    told = max(datetime.fromisoformat(event["at"]) for event in run.stages.values())
    return not path.exists() or path.stat().st_mtime < told.timestamp()


def _newest(stages: dict[str, dict[str, Any]], event: dict[str, Any]) -> None:
    """Keeps the event, where it stands in the order of stages; a stage that runs again shows its last attempt."""
    stages.pop(event["stage"], None)
    stages[event["stage"]] = event


def _write_run(product: Product, path: Path, run: Run, newest: bool) -> None:
    home = settings().home
    trained = _training(run.release)
    summary = files.read_json(home / "report" / product.name / "summary.json") or {}
    asked_now = (
        newest and run.release is not None and summary.get("release", {}).get("release_id") == run.release.release_id
    )
    page.write(
        path,
        "run.html",
        run=run,
        states=STATES,
        order=[name for name in (*product.daily_stages, *product.training_stages) if name in run.stages],
        tables=_tables(run),
        trained=trained,
        twin=_twin(run.release),
        plots=_plots(run.release),
        drift=_drift(run.release, trained),
        notable=distributions.NOTABLE,
        large=distributions.LARGE,
        answers=summary.get("answers", []) if asked_now else [],
        seconds=_seconds_plot(run),
        metrics=METRICS,
        models=MODELS,
        links=_links(path),
        relative=lambda target: os.path.relpath(target, path.parent),
    )


def _tables(run: Run) -> list[dict[str, Any]]:
    """What the run wrote or left as it was: table, version, the base's version, rows written."""
    base = releases.read(run.release.product, run.release.base).tables if run.release and run.release.base else {}
    wrote: dict[str, int] = {}
    rows: dict[str, int] = {}
    for event in run.stages.values():
        wrote.update(event.get("wrote") or {})
        if event["stage"] not in ("release", "materialize"):
            rows.update(event.get("rows") or {})
    named = run.release.tables if run.release else wrote
    return [
        {
            "name": name,
            "version": version,
            "was": base.get(name),
            "wrote": rows.get(name),
            "total": _rows(name, version),
        }
        for name, version in sorted(named.items())
    ]


def _rows(table: str, version: int) -> int | None:
    """Rows of a table at a version, from its log; None when it cannot be read any more."""
    try:
        return lake.rows(table, version)
    except lake.LakeError:
        return None


def _training(release: Release | None) -> dict[str, Any]:
    """What training said about its run on a release and about the dataset; empty when there was none."""
    if release is None:
        return {}
    about, run = (_trained(release, release.release_id, name) for name in (trainings.ABOUT, trainings.RUN))
    return {**about, **run}


def _trained(release: Release, number: int | str, name: str) -> dict[str, Any]:
    return objects.read_json(trainings.key(release.product, number, name)) or {}


def _twin(release: Release | None) -> dict[str, Any]:
    """The scores of the dataset's leaky twin beside the honest ones, and what the gates said; empty without a twin."""
    if release is None:
        return {}
    twin = f"{release.release_id}-leaky"
    about, judged = (_trained(release, twin, name) for name in (trainings.ABOUT, trainings.LEAKAGE))
    gates = verdict.read(judged.get("gates"), trainings.key(release.product, twin, trainings.LEAKAGE))
    return {"scores": about["scores"], "gates": gates} if about else {}


def _plots(release: Release | None) -> list[tuple[str, str]]:
    """(name, SVG) of each plot that training drew."""
    if release is None:
        return []
    drawn = settings().home / "training" / release.product / str(release.release_id) / "plots"
    found = {path.stem: path.read_text() for path in drawn.glob("*.svg")}
    return [
        (name, found[name])
        for name in ("calibration", "feature_importance", "roc", "precision_recall", "scores")
        if name in found
    ]


def _drift(release: Release | None, trained: dict[str, Any]) -> dict[str, Any]:
    """How far each feature moved between the day that the model was tested on and the run's newest snapshot."""
    if release is None or not trained.get("observations") or FEATURES not in release.tables:
        return {}
    then = str(trained["observations"]["test"])
    now = str(release.as_of)
    was, held = _snapshot(release, then), _snapshot(release, now)
    moved = {
        name: distributions.psi(was[name], held[name])
        for name in trained["features"]
        if name in was and len(was[name]) and len(held[name])
    }
    if not moved:
        return {}
    ordered = dict(sorted(moved.items(), key=lambda item: -item[1]))
    rows = [
        {
            "name": name,
            "psi": value,
            "was": distributions.describe(was[name]),
            "now": distributions.describe(held[name]),
        }
        for name, value in ordered.items()
    ]
    return {"then": then, "now": now, "rows": rows, "plot": _drift_plot(ordered, then, now)}


def _snapshot(release: Release, day: str) -> dict[str, NDArray[np.float64]]:
    """The numeric columns of one snapshot day, missing as NaN."""
    import pyarrow as pa

    table = lake.open_table(FEATURES, release.version(FEATURES)).to_pyarrow_table(
        partitions=[("snapshot_date", "=", day)]
    )
    return {
        name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in table.column_names
        if name not in NOT_FEATURES
        and (pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type))
    }


def _drift_plot(moved: dict[str, float], then: str, now: str) -> str:
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(7.4, 0.3 * len(moved) + 1.3), layout="constrained")
        names, values = list(moved)[::-1], list(moved.values())[::-1]
        colors = [
            figures.BAD if v > distributions.LARGE else figures.SECOND if v > distributions.NOTABLE else figures.MODEL
            for v in values
        ]
        shown = 2 * distributions.LARGE  # beyond it a bar's length says nothing more; its number stands beside it
        bars = axes.barh(names, [min(value, shown) for value in values], color=colors, height=0.62)
        axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, color=figures.MUTED, fontsize=9)
        for limit in (distributions.NOTABLE, distributions.LARGE):
            axes.axvline(limit, color=figures.MUTED, lw=1, ls="--")
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 1.15 * shown), xlabel="population stability index", title=f"Features of {now} against {then}")
        drawn = figures.svg(figure, f"Bars: how far each feature moved between {then} and {now}")
        plt.close(figure)
    return drawn


def _seconds_plot(run: Run) -> str:
    """Where the run's time went, a bar a stage."""
    took = {name: event.get("seconds", 0.0) for name, event in run.stages.items()}
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(7.4, 0.3 * len(took) + 1.1), layout="constrained")
        bars = axes.barh(list(took)[::-1], list(took.values())[::-1], color=figures.MODEL, height=0.62)
        axes.bar_label(bars, fmt="%.1f", padding=3, color=figures.MUTED, fontsize=9)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="seconds", title="Where the time went")
        axes.margins(x=0.1)
        drawn = figures.svg(figure, "Bars: seconds of each stage")
        plt.close(figure)
    return drawn


def _links(path: Path) -> list[tuple[str, str | None, str]]:
    """(what, address or None, how to get it): pages that the run's tools made."""
    home = settings().home
    pages: Iterable[tuple[str, Path, str]] = (
        ("Great Expectations data docs", home / "data_docs" / "index.html", "plumb ge_check"),
        ("dbt docs", home / "dbt" / "target" / "index.html", "plumb dbt docs generate --static"),
    )
    listed: list[tuple[str, str | None, str]] = [
        (what, os.path.relpath(at, path.parent) if at.exists() else None, how) for what, at, how in pages
    ]
    return [*listed, ("MLflow: runs, models, plots", None, "make up")]
