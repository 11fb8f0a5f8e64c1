"""Benchmarks as a page, a file and a picture: docs/benchmarks.md, .json and .svg."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.display import figures
from plumbline.settings import ROOT

JSON = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"


def write(found: dict[str, Any]) -> None:
    """Writes all three. `found` maps a benchmark's name to what it measured, and `machine` to where."""
    files.write_whole(JSON, json.dumps(found, indent=1) + "\n")
    files.write_whole(PAGE, text(found))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(PICTURE, picture(found))


def read() -> dict[str, Any]:
    """What was measured last, empty before the first time."""
    return files.read_json(JSON) or {}


def text(found: dict[str, Any]) -> str:
    """The page, from its template beside this module."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, autoescape=False)  # noqa: S701
    return environment.get_template("benchmarks.md.jinja").render(**found) + "\n"


def picture(found: dict[str, Any]) -> str:
    """All of them as one SVG, readable on white."""
    with figures.style() as plt:
        figure, places = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
        for axes, (name, plot) in zip(places.flat, PLOTS.items(), strict=True):
            if name in found:
                plot(axes, found[name])
            else:
                axes.set_axis_off()
        figure.patch.set_facecolor("white")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        plt.close(figure)
    return drawn.getvalue()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _grouped(axes: Any, groups: Sequence[str], series: dict[str, list[float]], unit: str, title: str) -> None:
    colors = [figures.MODEL, figures.SECOND, figures.THIRD]
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        at = [place + (number - (len(series) - 1) / 2) * width for place in range(len(groups))]
        bars = axes.bar(at, values, width * 0.95, label=name, color=colors[number])
        axes.bar_label(bars, fmt=_short, fontsize=8, color=figures.MUTED, padding=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="x", visible=False)
    axes.set(ylabel=unit, title=title)
    axes.margins(y=0.15)
    axes.legend(fontsize=8)


def _plot_reads(axes: Any, found: dict[str, Any]) -> None:
    sizes = sorted({row["customers"] for row in found["reads"]})
    paths = ["predictor", "feast", "redis"]
    series = {
        path: [
            row["p50_ms"] for size in sizes for row in found["reads"] if (row["customers"], row["path"]) == (size, path)
        ]
        for path in paths
    }
    _grouped(axes, [f"{size} customer{'s' if size > 1 else ''}" for size in sizes], series, "p50 ms", "a. Online read")


def _plot_predictions(axes: Any, found: dict[str, Any]) -> None:
    connections = sorted({row["connections"] for row in found["requests"]})
    series = {
        server: [row["per_second"] for row in found["requests"] if row["server"] == server]
        for server in ("features from Redis", "features given")
    }
    _grouped(axes, [f"{n} conn." for n in connections], series, "requests/s", "b. Predictions over HTTP")


def _plot_paths(title: str, unit: str, key: str) -> Any:
    def plot(axes: Any, found: dict[str, Any]) -> None:
        names = [row["path"].replace(" ", "\n", 1) for row in found["paths"]]
        bars = axes.bar(names, [row[key] for row in found["paths"]], 0.6, color=figures.MODEL)
        axes.bar_label(bars, fmt=_short, fontsize=8, color=figures.MUTED, padding=1)
        axes.grid(axis="x", visible=False)
        axes.set(ylabel=unit, title=title)

    return plot


def _plot_history(axes: Any, found: dict[str, Any]) -> None:
    rows = found["histories"]
    times = [row["times"] for row in rows]
    axes.plot(times, [row["daily_s"] for row in rows], "o-", color=figures.INK, label="all")
    for number, stage in enumerate(("dbt_run", "ge_check", "features", "materialize")):
        color = [figures.MODEL, figures.SECOND, figures.GOOD, figures.THIRD][number]
        axes.plot(times, [row["daily"][stage] for row in rows], "o-", ms=4, color=color, label=stage)
    axes.set_xscale("log", base=2)
    axes.set_xticks(times, [f"{n}x" for n in times])
    axes.set(xlabel="history", ylabel="seconds", title="e. A day's run", ylim=(0, None))
    axes.legend(fontsize=8)


def _plot_stages(axes: Any, found: dict[str, Any]) -> None:
    rows = found["stages"][::-1]
    names = [row["stage"] for row in rows]
    work = [row["work_s"] for row in rows]
    axes.barh(names, work, color=figures.MODEL, label="work")
    axes.barh(names, [row["start_up_s"] for row in rows], left=work, color=figures.SECOND, label="start-up")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="seconds", title="f. The demo")
    axes.legend(fontsize=8)


PLOTS = {
    "online_read": _plot_reads,
    "predictions": _plot_predictions,
    "materialization": _plot_paths("c. Materialization", "rows/s", "rows_per_second"),
    "join": _plot_paths("d. Point-in-time join", "seconds", "seconds"),
    "history": _plot_history,
    "stages": _plot_stages,
}
