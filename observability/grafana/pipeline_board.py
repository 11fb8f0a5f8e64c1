"""The board of a product's pipeline: state and time of each stage, releases, late days, and whether to trust it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from observability.dataset_metrics import prefix
from observability.grafana import limits as promises
from observability.grafana.board import (
    LINEAGE,
    Section,
    answers_uid,
    board,
    pipeline_uid,
    report,
    training,
    with_rows,
)
from observability.grafana.parts import BAD, GOOD, IDLE, NEUTRAL, WARN, Panel, Query, curve, link, number, steps, words
from observability.promises import DAYS
from plumbline.product import Product

WAITING = (0, "waiting", IDLE)
"""The number, word and colour of a stage that has not begun since the run's first stage did."""

CODES = {
    "complete": (1, "done", GOOD),
    "running": (2, "running", "blue"),
    "killed": (3, "killed", WARN),
    "fail": (4, "failed", BAD),
    "gate_failed": (5, "stopped", "dark-red"),
}
"""A stage's states as the numbers that `stage_state` is summed up to, with what a panel shows; a gate stops a stage."""


def pipeline_board(product: Product, *more: Section) -> dashboard.Dashboard:
    """The board; `more` are sections of its own, behind its stages."""
    made = board(
        product,
        "the pipeline's stages",
        pipeline_uid(product),
        "Which stage is late or broken, how long each takes, what is in force.",
    ).link(link("Data, model, business", f"/d/{answers_uid(product)}"))
    return with_rows(
        made,
        ("In force", _in_force(product)),
        ("Stages of the daily run, in their order", _stages(product, "the daily run", product.daily_stages)),
        ("Stages of training, in their order", _stages(product, "training", training(product))),
        *more,
        ("Over time", _over_time(product)),
        ("Can this board be believed?", _trust()),
    )


def _in_force(product: Product) -> list[Panel]:
    of, in_days = f'{{product="{product.name}"}}', promises.oldest(product) is not None
    return [
        number(
            "Release in force",
            "What does everything read?",
            [Query(f"release_id{of}")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=4,
            links=[link("Lineage", LINEAGE)],
        ),
        number(
            "Release online",
            "What does the predictor read?",
            [Query(f"online_release_id{of}")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=4,
        ),
        number(
            "In force until",
            "The end of the last day that the release covers, UTC.",
            [Query(f"1000 * release_covers_until_timestamp_seconds{of}")],
            unit="dateTimeAsIso",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=6,
        ),
        number(
            "Platform's clock",
            "The platform's now, UTC. In a replay it stands in the past.",
            [Query("1000 * plumbline_clock_seconds")],
            unit="dateTimeAsIso",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=6,
        ),
        *([_late_days(product)] if in_days else []),
    ]


def _late_days(product: Product) -> Panel:
    allowed = promises.late_days(product)
    return number(
        f"Late days of the last {DAYS}",
        f"Is the promise kept? The contract allows {allowed:.0f} of {DAYS} days to be late.",
        [Query(f"{prefix(product.features)}_late_days")],
        unit="none",
        limits=steps((allowed, WARN), (allowed + 1, BAD)),
        span=4,
    )


def _stages(product: Product, run: str, names: tuple[str, ...]) -> list[Panel]:
    return [
        number(
            f"State of {run}",
            "Where does the line stand? In the order of the run; `waiting` has not begun since the first one did.",
            [Query(_state(product, name, names[0]), name) for name in names],
            unit="none",
            limits=steps(below=NEUTRAL),
            mappings=words({code: (text, color) for code, text, color in (WAITING, *CODES.values())}),
            span=24,
            height=4,
            links=[link("Report: the run", report(product))],
        ),
        number(
            f"Time of {run}",
            "Which stage takes long?",
            [Query(f'stage_seconds{{product="{product.name}", stage="{name}"}}', name) for name in names],
            unit="s",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=24,
            height=4,
        ),
    ]


def _state(product: Product, stage: str, first: str) -> str:
    """One number for a stage's state: of its states one is 1, the others 0; 0 for all that belongs to an older run.

    A run that began behind its first stage, by hand, has no older one.
    """
    parts = [
        f'{code} * max(stage_state{{product="{product.name}", stage="{stage}", state="{state}"}})'
        for state, (code, _, _) in CODES.items()
    ]
    last = f'stage_last_timestamp_seconds{{product="{product.name}", stage='
    since, begun = (f'max({last}"{name}"}})' for name in (first, stage))
    return f"({' + '.join(parts)}) * ({begun} >= bool ({since} or 0 * {begun}))"


def _over_time(product: Product) -> list[Panel]:
    of = f'{{product="{product.name}"}}'
    return [
        curve(
            "Seconds a stage",
            "Did a stage become slow?",
            [Query(f"stage_seconds{of}", "{{stage}}")],
            unit="s",
            lowest=0,
            stepped=True,
            span=12,
            height=8,
        ),
        curve(
            "Runs of stages, in all",
            "Does something fail again and again? Runs that ended, by how.",
            [Query(f"sum by (state) (stage_runs_total{of})", "{{state}}")],
            unit="none",
            lowest=0,
            stepped=True,
            span=6,
            height=8,
        ),
        curve(
            "Verdicts of gates, in all",
            "Which gate is it each time?",
            [Query(f"sum by (gate, verdict) (gate_verdicts_total{of})", "{{gate}} {{verdict}}")],
            unit="none",
            lowest=0,
            stepped=True,
            span=6,
            height=8,
        ),
    ]


def _trust() -> list[Panel]:
    return [
        number(
            "Targets up",
            "Does Prometheus reach what it watches? A predictor that is down shows here first.",
            [Query("max by (job) (up)", "{{job}}")],
            unit="none",
            limits=steps((1, GOOD), below=BAD),
            mappings=words({0: ("down", BAD), 1: ("up", GOOD)}),
            span=8,
        ),
        number(
            "Unreadable to the exporter",
            "Is something absent because it could not be read? Times, since it started.",
            [Query("sum(exporter_unreadable_total) or (0 * sum(exporter_collect_seconds))")],
            unit="none",
            limits=steps((1, WARN)),
            span=6,
        ),
        curve(
            "Seconds to collect",
            "Does a scrape stay cheap?",
            [Query("exporter_collect_seconds", "exporter")],
            unit="s",
            lowest=0,
            span=10,
            height=4,
        ),
    ]
