"""One analysis of a canary: each metric is measured by its interval until its count is reached or a limit is crossed.

The rules are Argo's: a measurement is good or bad by the conditions, inconclusive when it meets neither of two, an
error when there was none; more than a metric's limit of bad ones fails it and the whole analysis at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from serving.rollout.conditions import NotEvaluated, Result
from serving.rollout.manifests import Metric
from serving.rollout.prometheus import QueryError, query

Phase = Literal["Running", "Successful", "Inconclusive", "Error", "Failed"]
RETRY_SECONDS = 10.0
"""After an error of a metric that is measured once."""

WORSE: tuple[Phase, ...] = ("Successful", "Running", "Inconclusive", "Error", "Failed")
"""From good to bad: an analysis is as bad as its worst metric."""

Ask = Callable[[str, str], Result]


@dataclass(frozen=True)
class Measurement:
    """What one query said; `value` is None for no data or no answer, `message` why."""

    metric: str
    phase: Phase
    value: float | None
    message: str


@dataclass
class Watched:
    """A metric under analysis: what was counted of it, and when it is due next."""

    metric: Metric
    due: float
    counted: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors_in_a_row: int = 0
    phase: Phase = "Running"
    why: str = ""


@dataclass
class AnalysisRun:
    """Metrics that are measured whenever they are due. `begun` and every `now` are seconds of one steady clock."""

    metrics: list[Metric]
    begun: float
    ask: Ask = query
    watched: list[Watched] = field(init=False)

    def __post_init__(self) -> None:
        self.watched = [Watched(metric, self.begun + metric.initial_delay) for metric in self.metrics]

    def step(self, now: float) -> list[Measurement]:
        """Measures what is due by now; nothing once the analysis is over."""
        taken = []
        for item in self.watched:
            if self.phase == "Running" and item.phase == "Running" and item.due <= now:
                taken.append(measurement := measure(item.metric, self.ask))
                _count(item, measurement, now)
        return taken

    @property
    def phase(self) -> Phase:
        """Running until every metric is over, or one is over and not Successful."""
        phases: list[Phase] = [item.phase for item in self.watched]
        worst: Phase = max(phases, key=WORSE.index, default="Successful")
        return "Running" if worst == "Successful" and "Running" in phases else worst

    @property
    def why(self) -> str:
        """What ended it, as a sentence of metric, value and limit."""
        return "; ".join(item.why for item in self.watched if item.phase == self.phase and item.why)


def measure(metric: Metric, ask: Ask = query) -> Measurement:
    """Asks once, and judges the answer by the metric's conditions."""
    try:
        result = ask(metric.address, metric.query)
        good = metric.success is None or metric.success.holds(result)
        bad = metric.failure is not None and metric.failure.holds(result)
    except (QueryError, NotEvaluated) as error:
        return Measurement(metric.name, "Error", None, str(error))
    value = result if isinstance(result, float) else next(iter(result), None)
    if value is None or math.isnan(value):
        value, said = None, "no data" if value is None else "NaN: no data to compute it from"
    else:
        said = f"{value:.4g}"
    if metric.failure is None:
        bad = not good
    elif metric.success is None:
        good = not bad
    if bad:
        wanted = metric.success or metric.failure
        return Measurement(
            metric.name,
            "Failed",
            value,
            f"{said}, {'expected' if metric.success else 'not'} {wanted.shown if wanted else ''}",
        )
    return Measurement(metric.name, "Successful" if good else "Inconclusive", value, said)


def _count(item: Watched, taken: Measurement, now: float) -> None:
    metric = item.metric
    if taken.phase == "Error":
        item.errors_in_a_row += 1
    else:
        item.errors_in_a_row = 0
        item.counted += 1
        item.failed += taken.phase == "Failed"
        item.inconclusive += taken.phase == "Inconclusive"
    item.due = now + (RETRY_SECONDS if metric.interval is None else metric.interval)
    limits: tuple[tuple[int, int, Phase, str], ...] = (
        (item.failed, metric.failure_limit, "Failed", "bad"),
        (item.inconclusive, metric.inconclusive_limit, "Inconclusive", "inconclusive"),
        (item.errors_in_a_row, metric.error_limit, "Error", "failed in a row"),
    )
    for number, limit, phase, word in limits:
        if number > limit:
            item.phase = phase
            item.why = f"{metric.name}: {taken.message} ({number} {word}, {limit} allowed)"
            return
    if metric.count is not None and item.counted >= metric.count:
        item.phase = "Successful"
