"""The driver: it walks the steps of the Rollout with a canary, and alone decides about the weights.

What Argo Rollouts does in a cluster, it does here with the same two files: a step's weight, an analysis, the next
step; an analysis that fails or errs aborts, weights back first; one that is inconclusive pauses the rollout, its
weights as they are, until somebody promotes or aborts; another version during a canary takes the canary's place and
starts with the first step. The alias `champion` moves only behind the last step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from plumbline import clock
from plumbline.errors import GateFailed, PlumblineError
from plumbline.product import Product
from plumbline.progress import say
from serving import deploy, launch
from serving import loaded_model as registry
from serving.errors import ServingError
from serving.rollout import machinery, manifests, prometheus, state
from serving.rollout.analysis import AnalysisRun, Phase
from serving.rollout.errors import RolloutError
from serving.rollout.machinery import Machinery
from serving.rollout.manifests import Analysis, Pause, SetWeight, Step
from serving.rollout.state import Status

TICK = 0.2
SAMPLE_SECONDS = 1.0
PAIRS = (
    "canary_kpi_difference",
    "canary_kpi_difference_lower",
    "canary_kpi_difference_upper",
    "canary_kpi_p_value",
    "canary_score_psi",
)
"""What the judge says of a pair, sampled for pages and tables; guardrails ask for it themselves."""

LAPTOP = {"warm-up": "32s", "interval": "2s", "count": "5", "window": "12s", "min-requests": "30"}
"""Args of the templates for one machine and minutes instead of a day: what is measured and its thresholds stay."""

SCORES, SHOWN_WITHIN = 120, 20.0
"""What the judge wants to see of a canary before it says how far scores have shifted, with a margin, and the seconds
that the outcome log, the judge and Prometheus take to show it and what came of it."""


def paced(per_second: float, first: int = 10) -> dict[str, str]:
    """LAPTOP's args for so many requests a second: slower traffic takes longer to fill the step of `first` percent."""
    return {**LAPTOP, "warm-up": f"{SHOWN_WITHIN + 100 * SCORES / first / per_second:.0f}s"}


class Aborted(GateFailed):
    """The rollout was aborted: stable has all traffic, the champion is who it was."""


class _Replaced(Exception):
    """Another version was asked for."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


Shown = Callable[[Status, Machinery], None]


@dataclass
class Driver:
    """A rollout under way. `shown` is told of it a few times a second; `traffic` says who asks (simulated, or not)."""

    machinery: Machinery
    args: Mapping[str, str] = field(default_factory=lambda: LAPTOP)
    shown: Shown = lambda status, machinery: None
    traffic: str | None = None
    status: Status = field(init=False)
    _sampled: float = field(init=False, default=0.0)
    _before: int | None = field(init=False, default=None)

    @property
    def product(self) -> Product:
        """Whose model is rolled out."""
        return self.machinery.product

    def run(self, model: str) -> Status:
        """Rolls a version out (an alias or a number); how it ended.

        Raises Conflict when another driver lives, Aborted with what ended it, RolloutError when it cannot start.
        """
        with state.driving(self.product):
            state.forget(self.product)
            version: str | None = model
            while version is not None:
                version = self._one(version)
            return self.status

    def _one(self, model: str) -> str | None:
        """One version; the next one when it was replaced."""
        product = self.product
        stable, found = registry.find(product, registry.CHAMPION), registry.find(product, model)
        if stable is None or found is None:
            raise RolloutError(f"{product.model} has no {model if stable else registry.CHAMPION!r} to roll out")
        if stable.version == found.version:
            raise RolloutError(f"version {found.version} is champion already: there is nothing to roll out")
        manifests.named(self.machinery.rollout, self.machinery.templates)
        for step in self.machinery.rollout.steps:
            self._metrics(step, {"canary": "", "stable": ""})
        self.machinery.up()
        self.status = Status(
            product=product.name,
            number=state.next_number(product),
            stable={"version": str(stable.version), "revision": self.machinery.stable_revision()},
            canary={"version": str(found.version), "revision": launch.revision(product, str(found.version))},
            steps=[_told(step) for step in self.machinery.rollout.steps],
            args=dict(self.args),
            traffic=self.traffic,
        )
        self.status.save()
        try:
            self._walk()
        except _Replaced as replaced:
            self._end("Aborted", f"version {replaced.version} was asked for instead")
            return replaced.version
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
            told = str(error) if isinstance(error, PlumblineError) else f"{type(error).__name__}: {error}"
            self._end("Aborted", "its driver was interrupted" if interrupted else told)
            raise
        return None

    def _walk(self) -> None:
        self._before = self.machinery.answered()["canary"]
        self.machinery.start_canary(self.status.canary["version"])
        for number, step in enumerate(self.machinery.rollout.steps):
            self.status.step = number
            try:
                self._take(step)
            except _Promoted as promoted:
                if promoted.whole:
                    break
        self._complete()

    def _take(self, step: Step) -> None:
        match step:
            case SetWeight(weight):
                self._weigh(weight, f"step {self.status.step + 1}")
            case Pause(seconds):
                self._pause(seconds, "a pause" if seconds is not None else f"a pause until {self._command('promote')}")
            case Analysis():
                self._analyse(step)

    def _analyse(self, step: Analysis) -> None:
        run = AnalysisRun(self._metrics(step, self._revisions()), clock.monotonic())
        while run.phase == "Running":
            for taken in run.step(clock.monotonic()):
                self.status.measurements.append(
                    {
                        "at": _now(),
                        "step": self.status.step,
                        "weight": self.status.weight,
                        "metric": taken.metric,
                        "phase": taken.phase,
                        "value": taken.value,
                        "message": taken.message,
                    }
                )
            self._tick(f"analysis at {self.status.weight} %")
        self._concluded(run.phase, run.why)

    def _concluded(self, phase: Phase, why: str) -> None:
        if phase in ("Failed", "Error"):
            raise Aborted(why)
        if phase == "Inconclusive":
            self._pause(None, f"inconclusive, {self._command('promote')} or `abort`: {why}")

    def _pause(self, seconds: float | None, why: str) -> None:
        """Waits so long, or until somebody promotes."""
        until = None if seconds is None else clock.monotonic() + seconds
        self.status.phase = "Progressing" if until else "Paused"
        while until is None or clock.monotonic() < until:
            try:
                self._tick(why)
            except _Promoted as promoted:
                if promoted.whole:
                    raise
                break
        self.status.phase = "Progressing"

    def _complete(self) -> None:
        """All traffic to the canary, which becomes stable; then the alias moves and the old one leaves."""
        self.status.phase = "Promoting"
        self._weigh(100, "behind the last step")
        self.machinery.adopt_canary()
        self._settle()
        self.machinery.retire_stable()
        self._end("Healthy", f"version {self.status.canary['version']} is champion")

    def _tick(self, message: str) -> None:
        """Looks at what was asked, at the canary and at the numbers, and lets others see them."""
        self.status.message = message
        now = clock.monotonic()
        if now - self._sampled >= SAMPLE_SECONDS:
            self._sampled = now
            self._sample()
            self.status.save()
        self.shown(self.status, self.machinery)
        match state.asked(self.product):
            case {"what": state.ABORT, "by": by}:
                raise Aborted(f"{by} asked for it")
            case {"what": state.REPLACE, "version": str(version)}:
                raise _Replaced(version)
            case {"what": state.PROMOTE | state.FULL as what}:
                raise _Promoted(what == state.FULL)
        if not self.machinery.canary_lives():
            raise Aborted("the canary's process ended")
        time.sleep(TICK)

    def _weigh(self, weight: int, why: str) -> None:
        self.machinery.weigh(weight)
        self.status.weight = weight
        self.status.weights.append({"at": _now(), "canary": weight, "why": why})
        self.status.save()

    def _sample(self) -> None:
        answered = self.machinery.answered()
        self._count(answered)
        revisions = self._revisions()
        pair = f'canary="{revisions["canary"]}",stable="{revisions["stable"]}"'
        asked = [f'{{__name__=~"{"|".join(PAIRS)}",{pair}}}']
        asked.append(f'canary_kpi_observations{{revision=~"{"|".join(revisions.values())}"}}')
        with suppress(prometheus.QueryError, RolloutError):
            address = self.machinery.addresses()["prometheus"]
            found = [item for query in asked for item in prometheus.series(address, query)]
            self.status.samples.append(
                {
                    "at": _now(),
                    "weight": self.status.weight,
                    "stable": answered["stable"],
                    "canary": self.status.exposed,
                    "kpis": _by_kpi(found, revisions),
                }
            )

    def _count(self, answered: Mapping[str, int]) -> None:
        """How many requests the canary saw; of a rollout that another driver began, what that one knew."""
        if self._before is not None:
            self.status.exposed = answered["canary"] - self._before

    def _end(self, phase: state.Phase, message: str) -> None:
        """Weights back first when it is aborted; then the file says how it ended."""
        self.status.message = message
        if phase == "Aborted":
            if self.status.phase == "Promoting" and self._settled():
                self.machinery.retire_stable()
                phase = "Healthy"
            else:
                self._back(message)
        self.status.phase, self.status.ended_at = phase, _now()
        with suppress(RolloutError):
            self._count(self.machinery.answered())
        self.status.save()
        self.shown(self.status, self.machinery)

    def _settle(self) -> None:
        try:
            deploy.settle(self.product, self.status.canary["version"])
        except ServingError as error:
            raise Aborted(f"the model cannot be champion: {error}") from error

    def _settled(self) -> bool:
        """Whether the alias has moved. When the registry cannot say: stable still runs, and takes all traffic."""
        with suppress(PlumblineError):
            return _champion(self.product) == self.status.canary["version"]
        return False

    def _back(self, why: str) -> None:
        try:
            self.machinery.weigh(0)
            self.status.weight = 0
            self.status.weights.append({"at": _now(), "canary": 0, "why": why})
            self.status.phase = "Aborted"
            self.status.save()
            self.machinery.dismiss_canary()
        except RolloutError as error:
            self.status.message += f"; and {error}"
            self.machinery.cut_off()

    def _metrics(self, step: Step, revisions: Mapping[str, str]) -> list[manifests.Metric]:
        if not isinstance(step, Analysis):
            return []
        hashes = {arg: revisions[side] for arg, side in step.hashes.items()}
        address = {"prometheus": self.machinery.addresses()["prometheus"]} if revisions["canary"] else {}
        given = {**step.values, **self.args, **hashes, **address}
        return manifests.metrics([self.machinery.templates[name] for name in step.templates], given)

    def _command(self, what: str) -> str:
        return f"`{state.command(self.product, what)}`"

    def _revisions(self) -> dict[str, str]:
        return {"canary": self.status.canary["revision"], "stable": self.status.stable["revision"]}


class _Promoted(Exception):
    """Somebody promoted: past this step, or past all that are left (`whole`)."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole


def recover(product: Product) -> Status | None:
    """A product's newest rollout. One that a killed driver left is brought to an end first: weights back to stable, or,
    where the alias has moved already, what is left of the promotion."""
    found = state.newest(product)
    if found is None or not found.active or state.driven(product):
        return found
    with state.driving(product):
        say(f"rollout {found.number} was left by a driver that was killed: bringing it to an end")
        driver = Driver(machinery.of(product))
        driver.status = found
        driver._end("Aborted", "its driver was killed; the weights went back when the next command found it")
        return found


def _champion(product: Product) -> str | None:
    found = registry.find(product, registry.CHAMPION)
    return str(found.version) if found else None


def _told(step: Step) -> str:
    match step:
        case SetWeight(weight):
            return f"weight {weight} %"
        case Pause(seconds):
            return "pause" if seconds is None else f"pause {seconds:g} s"
    return "analysis " + ", ".join(step.templates)


def _by_kpi(found: list[tuple[dict[str, str], float]], revisions: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """KPI → what the judge says of it; the scores' shift under `score`."""
    sides = {revision: side for side, revision in revisions.items()}
    told: dict[str, dict[str, float]] = {}
    for labels, value in found:
        name = labels["__name__"].removeprefix("canary_score_").removeprefix("canary_kpi_")
        name = name.removeprefix("difference_")
        if name == "observations":
            name = sides.get(labels["revision"], labels["revision"])
        told.setdefault(labels.get("kpi", "score"), {})[name] = value
    return told


def _now() -> str:
    return clock.wall().isoformat()
