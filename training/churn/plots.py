"""What a run shows: calibration, discrimination, what the scores look like, and what the model leans on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.display import figures
from plumbline.display.figures import BAD, GOOD, INK, MODEL, MUTED, SECOND, THIRD
from training import evaluate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLORS = {"model": MODEL, "BG/NBD": SECOND, "recency": THIRD}


def draw(
    folder: Path, churned: NDArray[Any], scores: Mapping[str, NDArray[Any]], gain: Mapping[str, float], title: str
) -> list[Path]:
    """Writes the pictures into `folder`, as PNG and as SVG for the report's pages, and gives the PNGs' paths.

    `scores` maps `model`, `BG/NBD`, `recency` to P(churn) on the test rows; `gain` a feature to its mean gain a split.
    """
    written = []
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        _calibration(axes, churned, scores)
        written.append(_save(figure, folder / "calibration.png", title))

        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        _roc(axes, churned, scores)
        written.append(_save(figure, folder / "roc.png", title))

        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        _precision_recall(axes, churned, scores)
        written.append(_save(figure, folder / "precision_recall.png", title))

        figure, axes = plt.subplots(figsize=(7.4, 4.4), layout="constrained")
        _histogram(axes, churned, scores["model"])
        written.append(_save(figure, folder / "scores.png", title))

        figure, axes = plt.subplots(figsize=(7.4, 0.32 * len(gain) + 1.4), layout="constrained")
        _importance(axes, gain)
        written.append(_save(figure, folder / "feature_importance.png", title))
    return written


def _calibration(axes: Axes, churned: NDArray[Any], scores: Mapping[str, NDArray[Any]]) -> None:
    lowest = 1.0
    for name, probability in scores.items():
        predicted, observed = evaluate.calibration(churned, probability)
        lowest = min(lowest, float(predicted.min()), float(observed.min()))
        axes.plot(predicted, observed, "o-", ms=4, lw=1.6, color=COLORS[name], label=name)
    low = max(0.0, lowest - 0.03)
    axes.plot([low, 1], [low, 1], "--", lw=1, color=INK, label="perfect")
    axes.set(xlabel="predicted P(churn), mean of a tenth of the customers", ylabel="share that did churn")
    axes.set(title="Calibration", xlim=(low, 1.01), ylim=(low, 1.01))
    axes.legend(loc="upper left")


def _roc(axes: Axes, churned: NDArray[Any], scores: Mapping[str, NDArray[Any]]) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    for name, probability in scores.items():
        false, true, _ = roc_curve(churned, probability)
        axes.plot(false, true, lw=1.8, color=COLORS[name], label=f"{name}  {roc_auc_score(churned, probability):.3f}")
    axes.plot([0, 1], [0, 1], "--", lw=1, color=INK)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (area)")
    axes.legend(loc="lower right")


def _precision_recall(axes: Axes, churned: NDArray[Any], scores: Mapping[str, NDArray[Any]]) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    for name, probability in scores.items():
        precision, recall, _ = precision_recall_curve(churned, probability)
        area = average_precision_score(churned, probability)
        shown = recall > 0.005  # left of it precision is that of a handful of customers
        axes.plot(recall[shown], precision[shown], lw=1.8, color=COLORS[name], label=f"{name}  {area:.3f}")
    base = float(churned.mean())
    axes.axhline(base, ls="--", lw=1, color=INK, label=f"base rate  {base:.3f}")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall of churn (average precision)")
    axes.set_ylim(max(0.0, base - 0.1), 1.005)
    axes.legend(loc="lower left")


def _histogram(axes: Axes, churned: NDArray[Any], probability: NDArray[Any]) -> None:
    import numpy as np

    edges = np.linspace(0, 1, 41).tolist()
    axes.hist(
        [probability[~churned], probability[churned]],
        bins=edges,
        stacked=True,
        color=[GOOD, BAD],
        label=["ordered again", "churned"],
    )
    axes.set(xlabel="predicted P(churn)", ylabel="customers", title="Scores on the test day", xlim=(0, 1))
    axes.legend(loc="upper left")


def _importance(axes: Axes, gain: Mapping[str, float]) -> None:
    total = sum(gain.values()) or 1.0
    ordered = sorted(gain.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [100 * value / total for _, value in ordered], color=MODEL)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="share of the trees' total gain, %", title="What the model leans on")


def _save(figure: Figure, path: Path, title: str) -> Path:
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path.with_suffix(".svg"), figures.svg(figure, f"{path.stem.replace('_', ' ')} of {title}"))
    figure.supxlabel(title, x=0.995, ha="right", fontsize=6.5, color=MUTED)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path
