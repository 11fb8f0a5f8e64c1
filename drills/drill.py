"""One drill: the fault, the real run, and what there is to see of it afterwards."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from drills import ground, shop
from drills.ground import Ground
from drills.striking import PLUMB
from plumbline import clock, verdict
from plumbline.orchestration.airflow import Airflow
from plumbline.progress import say
from plumbline.state import ledger, releases
from serving import client, launch

STOPPED = ("GATE_FAILED", "FAIL", "KILLED")


@dataclass
class Drilling:
    """What a drill works with: the ground, the answer given before the fault, and what it saw by itself.

    `seen` is when, by whom and with which words something was stopped that leaves no event in the ledger; `mend` mends
    the cause.
    """

    on: Ground
    folder: Path
    airflow: Airflow
    instance: dict[str, Any]
    before: dict[str, Any]
    release: int
    day: date
    mend: Callable[[], None] = lambda: None
    seen: tuple[datetime, str, str] | None = None
    notes: list[str] = field(default_factory=list)
    closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def entity(self) -> Any:
        """Whom the predictor is asked about."""
        return self.instance[self.on.product.entity]

    def looked(self) -> None:
        """Takes what is in force and answered now as what a fault must not change."""
        self.serve()
        self.before, self.release = self.answered(), self.in_force

    def saw(self, who: str, said: str) -> None:
        """Somebody stopped it, which the ledger does not hold."""
        self.seen = clock.wall(), who, said

    def serve(self) -> None:
        """Starts the predictor on this home, or finds it."""
        launch.ensure(self.on.product)

    def answered(self) -> dict[str, Any]:
        """The running predictor's word: status, what a fault must not change of its answer, release."""
        return answered(self.on, self.instance)

    @property
    def in_force(self) -> int:
        """The release in force."""
        return releases.required(self.on.product.name).release_id

    def run(self, dag: str | None = None, day: date | None = None) -> bool:
        """Runs a DAG (default: the day's) in the drill's Airflow; True when it came to its end."""
        return self.on.run(dag, day, self.airflow)

    def run_changed(self, dag: str | None = None) -> bool:
        """Runs a DAG of the changed copy of the tree; True when it came to its end."""
        with Airflow(ground.tree(self.folder)) as changed:
            return self.on.run(dag, within=changed)

    def stage(self, stage: str, *arguments: str, tree: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs one of the product's stages as a command."""
        return self.plumb(*self.on.product.command_of(stage).split()[1:], *arguments, tree=tree)

    def plumb(self, *arguments: str, tree: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs `plumb` in the drill's home, of the changed `tree` when one is given."""
        env = {**os.environ, "PYTHONPATH": str(tree)} if tree else None
        return subprocess.run(
            [str(PLUMB), *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=tree, env=env
        )

    @property
    def home(self) -> Path:
        """The home that the drill runs in."""
        return self.folder / "home"


@dataclass(frozen=True)
class Drill:
    """A fault; where it is put; who must stop it (`stage: gate`, none for a control); and the way back.

    `inject` puts the fault and leaves in the Drilling how its cause is mended, `act` is the run that meets it,
    `recover` brings the day in after the cause is mended; True when each came to its end.
    """

    name: str
    fault: str
    where: str
    stopped_by: str
    recovery: str
    inject: Callable[[Drilling], None]
    act: Callable[[Drilling], bool] = lambda drilling: drilling.run()
    recover: Callable[[Drilling], bool] = lambda drilling: drilling.run()
    on: Ground = shop.GROUND
    goes_on: bool = False
    """A fault in a process: the run's own second try may already bring the day in."""

    refuses: bool = False
    """What is online is wrong or too old: the predictor must refuse rather than answer from it."""

    holds: Callable[[Drilling], list[str]] = lambda drilling: []
    """What else must be so when all is over; what is not, in words."""


@dataclass
class Outcome:
    """A line of the table. `wrong` says what was not as it must be; empty is a drill that went well."""

    name: str
    fault: str
    where: str
    stopped_by: str
    seconds: float | None
    said: str
    recovery: str
    lost: int
    took: float
    wrong: list[str]
    notes: list[str]


def perform(drill: Drill, folder: Path) -> Outcome:
    """Runs a drill on fresh ground and looks at everything that its table line claims."""
    say(f"drill {drill.name}: {drill.fault}")
    started = clock.monotonic()
    drill.on.reset(folder, drill.name)
    with Airflow() as airflow:
        drilling = _before(drill.on, folder, airflow)
        try:
            return _performed(drill, drilling, started)
        finally:
            for close in drilling.closing:
                close()


def _performed(drill: Drill, drilling: Drilling, started: float) -> Outcome:
    drill.inject(drilling)
    product = drill.on.product.name
    begun, known = clock.wall(), len(list(ledger.events(product)))
    ended = drill.act(drilling)
    events = list(ledger.events(product))[known:]
    wrong = []
    stopped = _stop(events)
    at, who, said = _who(stopped, drilling)
    if drill.stopped_by != who:
        wrong.append(f"expected {drill.stopped_by or 'nobody'} to stop it, found {who or 'nobody'}: {said}")
    if stopped and not drill.goes_on:
        wrong += [f"{stage} ran after it" for stage in _later(events, stopped)]
    if drill.stopped_by and not drill.goes_on:
        wrong += _refused(drilling) if drill.refuses else _still_served(drilling, events)
        if ended and stopped:
            wrong.append("the run went on to its end")
    drilling.mend()
    if drill.stopped_by and not drill.recover(drilling):
        wrong.append(f"the run after the mend failed: {_stop(list(ledger.events(product))[known + len(events) :])}")
    lost = drill.on.lost()
    wrong += _over(drilling, lost) + drill.holds(drilling)
    evidence = drilling.folder / "evidence" / f"{drill.name}.json"
    evidence.parent.mkdir(exist_ok=True)
    evidence.write_text(json.dumps(list(ledger.events(product))[known:], indent=1, default=str))
    outcome = Outcome(
        drill.name,
        drill.fault,
        drill.where,
        who,
        round((at - begun).total_seconds(), 1) if at else None,
        said,
        drill.recovery,
        lost,
        round(clock.monotonic() - started, 1),
        wrong,
        drilling.notes,
    )
    say(f"drill {drill.name}: {'; '.join(wrong) or 'as it must be'} ({outcome.took:.0f} s)")
    return outcome


def answered(on: Ground, instance: dict[str, Any]) -> dict[str, Any]:
    """The running predictor's word on an instance: status, what `on` takes of its answer, release."""
    status, answer = client.predict(on.product, [instance])
    if status != 200:
        return {"status": status, "told": answer.get("error")}
    (prediction,) = answer["predictions"]
    return {"status": status, **on.said(prediction), "release_id": prediction["release_id"]}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """A command's last words."""
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("plumb: ")


def _before(on: Ground, folder: Path, airflow: Airflow) -> Drilling:
    on.comes(on.day)
    launch.ensure(on.product)
    instance = on.one()
    in_force = releases.required(on.product.name).release_id
    return Drilling(on, folder, airflow, instance, answered(on, instance), in_force, on.day)


def _stop(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((event for event in events if event["state"] in STOPPED), None)


def _who(stopped: dict[str, Any] | None, drilling: Drilling) -> tuple[datetime | None, str, str]:
    """When, by which stage and gate, and in which words."""
    if drilling.seen is not None:
        return drilling.seen
    if stopped is None:
        return None, "", ""
    gates = [name for name, found in verdict.of_event(stopped).items() if not found.passed]
    who = f"{stopped['stage']}: {', '.join(gates)}" if gates else f"{stopped['stage']}: {stopped['state'].lower()}"
    return datetime.fromisoformat(stopped["at"]), who, str(stopped.get("error", "")).strip()


def _later(events: list[dict[str, Any]], stopped: dict[str, Any]) -> list[str]:
    """Stages that began after the stop. The same one may be tried a second time, and be stopped again."""
    began = {event["stage"] for event in events if event["at"] > stopped["at"] and event["state"] == "START"}
    return sorted(began - {stopped["stage"]})


def _still_served(drilling: Drilling, events: list[dict[str, Any]]) -> list[str]:
    """What is not served as before. A run that was stopped behind its release has published that, and no more."""
    published = any(event["stage"] == "release" and event["state"] == "COMPLETE" for event in events)
    now, before, wrong = drilling.answered(), dict(drilling.before), []
    if published:
        before.pop("release_id", None)
        now.pop("release_id", None)
    elif drilling.in_force != drilling.release:
        wrong.append(f"release {drilling.release} is not in force any more")
    if now != before:
        wrong.append(f"the predictor said {before} before and {now} after")
    return wrong


def _refused(drilling: Drilling) -> list[str]:
    now = drilling.answered()
    drilling.notes.append(f"the predictor said: {now.get('told')}")
    return [f"the predictor still answered from it: {now}"] if now["status"] == 200 else []


def _over(drilling: Drilling, lost: int) -> list[str]:
    """What must be so after every drill: the day is in force and online, and nothing is lost."""
    release = releases.required(drilling.on.product.name)
    wrong = [] if lost == 0 else [f"{lost} {drilling.on.counted} lost or doubled"]
    if release.as_of != drilling.day:
        wrong.append(f"the release in force is of {release.as_of}, not of {drilling.day}")
    drilling.serve()
    now = answered(drilling.on, drilling.on.newest())
    if now["status"] != 200 or (drilling.on.anew and now["release_id"] != release.release_id):
        wrong.append(f"release {release.release_id} is in force, the predictor says {now}")
    return wrong
