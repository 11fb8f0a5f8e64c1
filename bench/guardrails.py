"""`make study`: how often the guardrails abort a canary that is as good as stable, and how soon one that is worse.

The judge is the shipped one, with the shipped template's alpha, effect and times; what it reads is simulated. Requests
draw real CDNOW customers; whether they ordered is real, what they answered to a campaign is `simulated_responses`.
Writes docs/guardrails.md, .json and the picture. Some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import measured
from bench.rollouts import (
    KPIS,
    LONGEST,
    LOOK,
    METHODS,
    NEVER,
    PER_SECOND,
    RAMP,
    Late,
    Scenario,
    args,
    population,
    run,
    step_seconds,
)
from plumb.demo.simulated_responses import SEED
from plumbline import clock, files
from plumbline.display import figures
from plumbline.progress import say
from plumbline.settings import ROOT
from serving.judge.verdicts import BINS, ENOUGH, HOLD, SLOT

JSON, PAGE = ROOT / "docs" / "guardrails.json", ROOT / "docs" / "guardrails.md"
PICTURE = ROOT / "docs" / "images" / "guardrails.svg"

AA_RUNS, EFFECT_RUNS, EFFECTS = 1000, 100, (0.05, 0.10, 0.20, 0.50)
AS_GOOD = {"plain": Scenario(), "hard": Scenario(late=Late(event=15.0, absence=240.0), drift=(0.6, 1.4))}
"""Canaries as good as stable: under steady rates, and where rates grow and absences are known late."""

PARTS = (*AS_GOOD, *KPIS)


def measured_at() -> dict[str, str]:
    """What the numbers depend on: args of the template, and the Rollout's weights."""
    found = {name: args()[name] for name in ("alpha", "effect", "warm-up", "interval", "count", "min-requests")}
    return {**found, "weights": ", ".join(f"{share:.0%}" for share in RAMP)}


def measure(part: str, runs: int | None = None) -> dict[str, Any]:
    """One of PARTS, as numbers."""
    import numpy as np

    people = population()
    ramp = step_seconds() * len(RAMP) * PER_SECOND
    if part in AS_GOOD:
        runs = runs or AA_RUNS
        say(f"{runs} canaries as good as stable, {part}")
        done = [run(people, AS_GOOD[part], np.random.default_rng([SEED, number])) for number in range(runs)]
        return {
            "runs": runs,
            "args": measured_at(),
            **{method: _curve([one.first(method) for one in done], ramp) for method in METHODS},
        }
    runs = runs or EFFECT_RUNS
    number, harm = list(KPIS).index(part), KPIS[part]
    rows = []
    for effect in EFFECTS:
        say(f"{runs} canaries whose {part} is {effect:.0%} worse")
        factor = [1.0] * len(KPIS)
        factor[number] += harm * effect
        worse = Scenario(factor=(factor[0], factor[1]), kpi=part)
        done = [run(people, worse, np.random.default_rng([SEED, number, int(100 * effect), n])) for n in range(runs)]
        row: dict[str, Any] = {"effect": effect}
        for method in METHODS:
            until = [one.requests[method, part] for one in done]
            row[method] = {
                "in_ramp": round(sum(n <= ramp for n in until) / runs, 3),
                "requests": _median(until),
                "exposed": _median([one.exposed[method, part] for one in done]),
            }
        row["curve"] = sorted(n for n in (one.requests["judge", part] for one in done) if n < NEVER)
        rows.append(row)
    return {"runs": runs, "args": measured_at(), "rate": round(float(people.mean(axis=0)[number]), 3), "effects": rows}


def _curve(until: list[float], ramp: int) -> dict[str, Any]:
    """The share of runs that were aborted, in all and by so many requests; and what it is at most, at 95 %."""
    from scipy.stats import beta

    aborted = sum(n < NEVER for n in until)
    at = [ramp * part // 60 for part in range(61)]
    return {
        "aborted": aborted / len(until),
        "at_most": round(float(beta.ppf(0.95, aborted + 1, len(until) - aborted)), 4) if aborted < len(until) else 1.0,
        "requests": at,
        "share": [sum(n <= requests for n in until) / len(until) for requests in at],
    }


def _median(until: list[float]) -> float | None:
    middle = sorted(until)[len(until) // 2]
    return None if middle == NEVER else middle


def text(found: dict[str, Any]) -> str:
    """The page, from its template beside this module and the AnalysisTemplate's numbers."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, autoescape=False)  # noqa: S701
    ramp = {"step_seconds": step_seconds(), "per_second": PER_SECOND, "shares": RAMP, "look": LOOK, "longest": LONGEST}
    ramp["requests"] = step_seconds() * len(RAMP) * PER_SECOND
    judge = {"bins": BINS, "enough": ENOUGH, "slot": int(SLOT), "hold": int(HOLD)}
    given = {"args": args(), "methods": METHODS, "ramp": ramp, **judge, **found}
    return environment.get_template("guardrails.md.jinja").render(**given) + "\n"


def picture(found: dict[str, Any]) -> str:
    """Aborts over requests: of canaries as good as stable, and of worse ones."""
    colors = {"judge": figures.MODEL, "threshold": figures.SECOND, "z": figures.BAD}
    plots: list[tuple[str, Callable[[Any], None]]] = [
        ("a. As good as stable", lambda axes: _plot_aa(axes, found["plain"], colors, legend=0.45)),
        (
            "b. As good; rates drift, outcomes come late",
            lambda axes: _plot_aa(axes, found["hard"], colors, legend=0.08),
        ),
        ("c. Fewer orders", lambda axes: _plot_effects(axes, found, "conversion_rate")),
        ("d. More calls", lambda axes: _plot_effects(axes, found, "call_center_load")),
    ]
    with figures.style() as plt:
        figure, places = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
        for axes, (title, plot) in zip(places.flat, plots, strict=True):
            plot(axes)
            axes.set(title=title, ylim=(0, 1.02), ylabel="canaries aborted")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        figure.patch.set_facecolor("white")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        plt.close(figure)
    return drawn.getvalue()


def _plot_aa(axes: Any, curves: dict[str, Any], colors: dict[str, str], legend: float) -> None:
    for method, label in METHODS.items():
        curve = curves[method]
        axes.plot(curve["requests"], curve["share"], color=colors[method], label=f"{label}: {curve['aborted']:.1%}")
    alpha = float(args()["alpha"])
    axes.axhline(alpha, color=figures.MUTED, linestyle="--", linewidth=1, label=f"alpha: {alpha:.0%}")
    axes.set_xlabel("requests since the start of the ramp")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, legend))


def _plot_effects(axes: Any, found: dict[str, Any], kpi: str) -> None:
    shades = dict(zip(EFFECTS, (figures.THIRD, figures.SECOND, figures.MODEL, figures.BAD), strict=True))
    for row in found[kpi]["effects"]:
        share = [number / found[kpi]["runs"] for number in range(1, len(row["curve"]) + 1)]
        axes.step(row["curve"], share, where="post", color=shades[row["effect"]], label=f"{row['effect']:.0%} worse")
    ramp = step_seconds() * len(RAMP) * PER_SECOND
    axes.axvline(ramp, color=figures.MUTED, linestyle="--", linewidth=1, label="end of the ramp")
    axes.set(xscale="log", xlabel="requests until the judge aborts", xlim=(150, LONGEST))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(fontsize=8, loc="upper left")


def write(found: dict[str, Any]) -> None:
    """Writes page, numbers and picture."""
    files.write_whole(JSON, json.dumps(found, indent=1) + "\n")
    files.write_whole(PAGE, text(found))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(PICTURE, picture(found))


def main() -> None:
    """Measures the parts that are named, all by default; numbers of the others are kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.guardrails", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="of " + ", ".join(PARTS) + "; default: all")
    parser.add_argument("--page", action="store_true", help="write page and picture anew from the numbers")
    given = parser.parse_args()
    parts = given.parts or (() if given.page else PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    found = files.read_json(JSON) or {}
    for part in parts:
        begun = clock.monotonic()
        found["machine"] = measured.machine()
        found[part] = measure(part)
        say(f"{part}: {clock.monotonic() - begun:.0f} s")
    if missing := [part for part in PARTS if part not in found]:
        files.write_whole(JSON, json.dumps(found, indent=1) + "\n")
        say(f"no page before {', '.join(missing)} is measured too")
    else:
        write(found)


if __name__ == "__main__":
    main()
