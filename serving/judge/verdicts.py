"""Verdicts on a canary from the outcome log alone: the same log, the same numbers.

A pair is a canary's revision and the stable one that answered beside it. Its KPIs are compared by `judge_stats`, in
cells that the log itself determines, so that a restart makes the same: the requests of one minute, CELL at a time, by
the SLOT in which their outcomes were recorded, and within a slot in an order that knows neither side nor event. A cell
with outcomes of one side tells nothing; so shuffled, few are. Outcomes may come late, and orders earlier than their
absence: requests of one minute are equally old on both sides, so lateness strikes both alike, while the canary's
requests of a whole rollout are younger than stable's.

A request about several (customers, images) counts once, by the first outcome that is recorded: all of it went to one
side. Requests outside a rollout (no revision) do not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from plumbline.lake.distributions import psi
from plumbline.metrics import JUDGE
from plumbline.product import Kpi
from serving.errors import ServingError
from serving.judge.stats import SequentialTest
from serving.track import CANARY, STABLE

WINDOW = 60.0
"""Seconds of requests that are compared with each other."""

CELL = 50
"""Outcomes of a window that are tested together. 1 / CELL is the information that is lost against one large cell."""

SLOT = 5.0
"""Seconds of recorded outcomes that are shuffled together: some may be recorded one side at a time."""

HOLD = 8.0
"""Seconds of the log behind a slot before it is tested. A predictor's rows reach the log within 5 s, one side's at a
time: by now those of both sides are there, and where an outcome is tested does not depend on its side."""

LINGER = 2
"""Windows after which fewer than a CELL of outcomes are tested too, once a window."""

KEPT = 3600.0
"""Seconds of a canary's requests that are kept: an outcome that is later does not count, a pair without any ends."""

SCORES = 2_000
"""Scores of a revision that are kept of a window, the first ones."""

ENOUGH = 100
"""Scores of either side before a shift is told: two samples of one distribution have a PSI of BINS / ENOUGH or so."""

BINS, GRID = 5, 0.05
"""Bins end at stable's quantiles, taken to the next multiple of GRID. On a quantile lie customers of one history, who
share a score: a model that gives them a thousandth more would move them all into the next bin (models that differed by
their seed alone had a PSI of 0.9; so taken, 0.03, above 0.25 in under 1 of 500 samples of 100)."""


class Answer(NamedTuple):
    """A row of the outcome log; `at` in real time, Unix seconds."""

    request_id: str
    at: float
    revision: str
    track: str
    score: float


class Outcome(NamedTuple):
    """What came of a request; `recorded` in real time, Unix seconds. Events in the order of its product's KPIs."""

    request_id: str
    recorded: float
    events: tuple[bool, ...]


class Pair(NamedTuple):
    """Two revisions."""

    canary: str
    stable: str


class Side(NamedTuple):
    """Who answered a request."""

    track: str
    revision: str


@dataclass(frozen=True)
class Levels:
    """The guardrails' numbers that the judge needs: `alpha` is of all KPIs together."""

    alpha: float
    effect: float


@dataclass
class _Window:
    """The requests of WINDOW seconds: scores by side, and outcomes that are not tested yet."""

    scores: dict[Side, list[float]] = field(default_factory=dict)
    untested: list[tuple[Side, tuple[bool, ...]]] = field(default_factory=list)


class Judge:
    """Takes rows of the log as they come, in the order of their commits, and gives the metrics of `JUDGE`.

    `kpis` are compared; each has its share of alpha, which is `level`.
    """

    def __init__(self, levels: Levels, kpis: Sequence[Kpi]) -> None:
        self.level, self._effect, self._kpis = levels.alpha / len(kpis), levels.effect, tuple(kpis)
        self._windows: dict[int, _Window] = {}
        self._waiting: dict[str, tuple[Side, int]] = {}
        self._tests: dict[Pair, dict[str, SequentialTest]] = {}
        self._newest: dict[Pair, int] = {}
        self._counts: dict[str, list[int]] = {}
        self._slots: dict[int, list[Outcome]] = {}
        self._due = self._lingered = self._swept = 0

    def read(self, answers: Sequence[Answer], outcomes: Sequence[Outcome]) -> None:
        """The log's next rows.

        What was recorded in a SLOT is tested once a row of the log is HOLD seconds younger. An outcome whose prediction
        is not logged by then waits up to a WINDOW for it: it counts, in a later cell than if the log were read whole.
        Outcomes of requests that are unknown, forgotten or have counted already change nothing.
        """
        waiting = sorted(answers, key=lambda row: row.at)
        for row in outcomes:
            self._slots.setdefault(max(self._due, int(row.recorded // SLOT)), []).append(row)
        newest = max([row.at for row in answers] + [row.recorded for row in outcomes], default=0.0)
        due, given = max(self._due, int((newest - HOLD) // SLOT)), 0
        while (slot := min(self._slots, default=due)) < due:
            self._due, end = slot + 1, (slot + 1) * SLOT
            before = bisect_right(waiting, end + WINDOW, lo=given, key=lambda row: row.at)
            self._answered(waiting[given:before])
            given = before
            self._known(end, sorted(self._slots.pop(slot), key=_order))
        self._due = due
        self._answered(waiting[given:])

    def _answered(self, rows: Sequence[Answer]) -> None:
        for row in rows:
            side, at = Side(row.track, row.revision), int(row.at // WINDOW)
            window = self._windows.setdefault(at, _Window())
            if len(held := window.scores.setdefault(side, [])) < SCORES:
                held.append(row.score)
            self._waiting.setdefault(row.request_id, (side, at))
        if rows:
            self._forget(rows[-1].at)

    def _known(self, end: float, rows: Sequence[Outcome]) -> None:
        """Takes in a slot's outcomes; `end` is the slot's."""
        for row in rows:
            if row.request_id not in self._waiting:
                if row.recorded >= end - WINDOW:
                    self._slots.setdefault(self._due, []).append(row)
                continue
            side, at = self._waiting.pop(row.request_id)
            window = self._windows[at]
            window.untested.append((side, row.events))
            if len(window.untested) >= CELL:
                self._test(at, window)
        if (lingered := int(end // WINDOW) - LINGER) > self._lingered:
            self._lingered = lingered
            for at, window in self._windows.items():
                if window.untested and at <= lingered:
                    self._test(at, window)
        self._forget(end)

    def p_values(self) -> dict[tuple[str, ...], float]:
        """By KPI, canary and stable: what `canary_kpi_p_value` tells."""
        return {(kpi, *pair): test.p_value for pair, tests in self._tests.items() for kpi, test in tests.items()}

    def samples(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Every metric of JUDGE that is known now: its values by their labels, in the schema's order."""
        found: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in JUDGE}
        found["canary_kpi_p_value"] = self.p_values()
        for pair, tests in self._tests.items():
            for kpi, test in tests.items():
                if (difference := test.difference()) is not None:
                    found["canary_kpi_difference"][kpi, *pair] = difference.estimate
                    found["canary_kpi_difference_lower"][kpi, *pair] = difference.lower
                    found["canary_kpi_difference_upper"][kpi, *pair] = difference.upper
            if (shift := self._shift(pair)) is not None:
                found["canary_score_psi"][pair] = shift
        for revision, (requests, *events) in self._counts.items():
            for name, count in zip((kpi.name for kpi in self._kpis), events, strict=True):
                found["canary_kpi_observations"][name, revision] = requests
                found["canary_kpi_rate"][name, revision] = count / requests
        return found

    def _test(self, at: int, window: _Window) -> None:
        """Adds a cell to the test of each pair in it."""
        counts: dict[Side, list[int]] = {}
        for side, events in window.untested:
            mine = counts.setdefault(side, [0] * (1 + len(self._kpis)))
            mine[0] += 1
            for number, event in enumerate(events, start=1):
                mine[number] += event
        window.untested = []
        pairs = [
            (canary, stable)
            for canary in counts
            for stable in counts
            if (canary.track, stable.track) == (CANARY, STABLE) and canary.revision != stable.revision
        ]
        for canary, stable in pairs:
            pair = Pair(canary.revision, stable.revision)
            self._newest[pair] = max(at, self._newest.get(pair, at))
            tests = self._tests.setdefault(
                pair,
                {kpi.name: SequentialTest(self.level, self._effect, kpi.worse) for kpi in self._kpis},
            )
            for number, test in enumerate(tests.values(), start=1):
                test.add(counts[canary][0], counts[stable][0], counts[canary][number], counts[stable][number])
        for side in {side for pair in pairs for side in pair}:
            total = self._counts.get(side.revision, [0] * (1 + len(self._kpis)))
            self._counts[side.revision] = [one + other for one, other in zip(total, counts[side], strict=True)]

    def _shift(self, pair: Pair) -> float | None:
        """PSI of the canary's scores against stable's in the windows that have both; None before there are ENOUGH."""
        import numpy as np

        sides = Side(CANARY, pair.canary), Side(STABLE, pair.stable)
        shared = [window.scores for window in self._windows.values() if all(side in window.scores for side in sides)]
        canary, stable = ([score for scores in shared for score in scores[side]] for side in sides)
        if min(len(canary), len(stable)) < ENOUGH:
            return None
        inner = np.quantile(stable, np.linspace(0, 1, BINS + 1)[1:-1])
        ends = np.unique(np.clip(np.round(inner / GRID), 1, 1 / GRID - 1)) * GRID
        return psi(np.array(stable), np.array(canary), ends=ends)

    def _forget(self, now: float) -> None:
        """Drops windows of over KEPT ago, pairs that had their last there, and past windows that had no canary."""
        newest, oldest = int(now // WINDOW), int((now - KEPT) // WINDOW)
        if newest == self._swept:
            return
        self._swept = newest
        for at, window in list(self._windows.items()):
            alone = at < newest - LINGER and not any(side.track == CANARY for side in window.scores)
            if at < oldest or alone:
                del self._windows[at]
        self._waiting = {request: told for request, told in self._waiting.items() if told[1] in self._windows}
        for pair in [pair for pair, last in self._newest.items() if last < oldest]:
            del self._newest[pair], self._tests[pair]
        alive = {revision for pair in self._tests for revision in pair}
        self._counts = {revision: counts for revision, counts in self._counts.items() if revision in alive}


def _order(row: Outcome) -> tuple[int, str]:
    """By nothing that has to do with the request: ids may be numbers or name a caller."""
    return crc32(row.request_id.encode()), row.request_id


def levels(template: Path) -> Levels:
    """`alpha` and `effect` of an AnalysisTemplate's args. Raises ServingError that says what is wrong with the file."""
    import yaml

    try:
        args = {arg["name"]: arg.get("value") for arg in yaml.safe_load(template.read_text())["spec"]["args"]}
    except OSError as error:
        raise ServingError(f"{template}: {error.strerror}; expected the file of an AnalysisTemplate") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ServingError(f"{template}: expected an AnalysisTemplate, found no YAML: {error}") from None
    except (TypeError, KeyError, AttributeError):
        raise ServingError(f"{template}: expected an AnalysisTemplate with spec.args, each with a name") from None
    return Levels(*(_share(template, args, name, below) for name, below in (("alpha", 0.5), ("effect", 5.0))))


def _share(template: Path, args: dict[str, Any], name: str, below: float) -> float:
    try:
        value = float(args[name])
    except (KeyError, TypeError, ValueError):
        raise ServingError(f"{template}: expected a number as the arg {name!r}, found {args.get(name)!r}") from None
    if not 0.001 <= value <= below:
        raise ServingError(f"{template}: arg {name!r} is {value}, expected 0.001 to {below}")
    return value
