"""One drill: the fault, the real run, and what there is to see of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from drills import ground, shop_faults
from plumbline import clock, verdict
from plumbline.lake import tables as lake
from plumbline.orchestration.airflow import Airflow
from plumbline.progress import say
from plumbline.state import ledger, releases
from products.churn import CHURN
from serving import client, launch

STOPPED = ("GATE_FAILED", "FAIL", "KILLED")


@dataclass
class Drilling:
    """What a drill works with: the ground, the answer given before the fault, and what it saw by itself.

    `seen` is when and by whom something was stopped that leaves no event in the ledger; `mend` mends the cause.
    """

    folder: Path
    airflow: Airflow
    customer: int
    before: dict[str, Any]
    release: int
    day: date = ground.DAY
    mend: Callable[[], None] = lambda: None
    seen: tuple[datetime, str] | None = None
    notes: list[str] = field(default_factory=list)
    closing: list[Callable[[], None]] = field(default_factory=list)

    def looked(self) -> None:
        """Takes what is in force and answered now as what a fault must not change."""
        serve()
        self.before, self.release = answered(self.customer), releases.required(ground.PRODUCT).release_id

    def run(self, dag: str = ground.DAILY, day: date | None = ground.DAY) -> bool:
        """Runs a DAG in the drill's Airflow; True when it came to its end."""
        return ground.run(dag, day, self.airflow)

    def run_changed(self, dag: str = ground.DAILY) -> bool:
        """Runs a DAG of the changed copy of the tree; True when it came to its end."""
        with Airflow(ground.tree(self.folder)) as changed:
            return ground.run(dag, within=changed)

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
    ground.reset(folder, drill.name)
    with Airflow() as airflow:
        drilling = _before(folder, airflow)
        try:
            return _performed(drill, drilling, started)
        finally:
            for close in drilling.closing:
                close()


def _performed(drill: Drill, drilling: Drilling, started: float) -> Outcome:
    drill.inject(drilling)
    begun, known = clock.wall(), len(list(ledger.events(ground.PRODUCT)))
    ended = drill.act(drilling)
    events = list(ledger.events(ground.PRODUCT))[known:]
    wrong = []
    stopped = _stop(events)
    at, who, said = _who(stopped, drilling)
    if drill.stopped_by != who:
        wrong.append(f"expected {drill.stopped_by or 'nobody'} to stop it, found {who or 'nobody'}: {said}")
    if stopped and not drill.goes_on:
        wrong += [f"{stage} ran after it" for stage in _later(events, stopped)]
    if drill.stopped_by and not drill.goes_on:
        wrong += _refused(drilling) if drill.refuses else _still_served(drilling)
        if ended and stopped:
            wrong.append("the run went on to its end")
    drilling.mend()
    if drill.stopped_by and not drill.recover(drilling):
        wrong.append(
            f"the run after the mend failed: {_stop(list(ledger.events(ground.PRODUCT))[known + len(events) :])}"
        )
    lost = orders_lost()
    wrong += _over(drilling, lost) + drill.holds(drilling)
    evidence = drilling.folder / "evidence" / f"{drill.name}.json"
    evidence.parent.mkdir(exist_ok=True)
    evidence.write_text(json.dumps(list(ledger.events(ground.PRODUCT))[known:], indent=1, default=str))
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


def orders_lost() -> int:
    """Orders in the shop that the release in force does not have, and orders that it has more than once."""
    release = releases.required(ground.PRODUCT)
    held = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pyarrow_table(
        columns=["order_id"]
    )
    ids = held["order_id"].to_pylist()
    sent = {row[0] for row in shop_faults.sql("SELECT order_id FROM orders")}
    return len(sent - set(ids)) + len(ids) - len(set(ids))


def answered(customer: int) -> dict[str, Any]:
    """The running predictor's word on a customer: status, score, release."""
    status, answer = client.ask(customer)
    if status != 200:
        return {"status": status, "told": answer.get("error")}
    found = answer["predictions"][0]
    return {"status": status, **{name: found[name] for name in ("churn_probability", "release_id")}}


def serve() -> None:
    """Starts the predictor on this home, or finds it."""
    launch.ensure(CHURN)


def _before(folder: Path, airflow: Airflow) -> Drilling:
    ground.day_comes(ground.DAY)
    serve()
    customer = ground.customer()
    return Drilling(folder, airflow, customer, answered(customer), releases.required(ground.PRODUCT).release_id)


def _stop(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((event for event in events if event["state"] in STOPPED), None)


def _who(stopped: dict[str, Any] | None, drilling: Drilling) -> tuple[datetime | None, str, str]:
    """When, by which stage and gate, and in which words."""
    if drilling.seen is not None:
        at, said = drilling.seen
        who, _, said = said.partition(" | ")
        return at, who, said
    if stopped is None:
        return None, "", ""
    gates = [name for name, found in verdict.of_event(stopped).items() if not found.passed]
    who = f"{stopped['stage']}: {', '.join(gates)}" if gates else f"{stopped['stage']}: {stopped['state'].lower()}"
    return datetime.fromisoformat(stopped["at"]), who, str(stopped.get("error", "")).strip()


def _later(events: list[dict[str, Any]], stopped: dict[str, Any]) -> list[str]:
    """Stages that began after the stop. The same one may be tried a second time, and be stopped again."""
    began = {event["stage"] for event in events if event["at"] > stopped["at"] and event["state"] == "START"}
    return sorted(began - {stopped["stage"]})


def _still_served(drilling: Drilling) -> list[str]:
    wrong = []
    if releases.required(ground.PRODUCT).release_id != drilling.release:
        wrong.append(f"release {drilling.release} is not in force any more")
    if (now := answered(drilling.customer)) != drilling.before:
        wrong.append(f"the predictor said {drilling.before} before and {now} after")
    return wrong


def _refused(drilling: Drilling) -> list[str]:
    now = answered(drilling.customer)
    drilling.notes.append(f"the predictor said: {now.get('told')}")
    return [f"the predictor still answered from it: {now}"] if now["status"] == 200 else []


def _over(drilling: Drilling, lost: int) -> list[str]:
    """What must be so after every drill: the day is in force and online, and nothing is lost."""
    release = releases.required(ground.PRODUCT)
    wrong = [] if lost == 0 else [f"{lost} orders lost or doubled"]
    if release.as_of != drilling.day:
        wrong.append(f"the release in force is of {release.as_of}, not of {drilling.day}")
    serve()
    if (now := answered(drilling.customer)).get("release_id") != release.release_id:
        wrong.append(f"release {release.release_id} is in force, the predictor says {now}")
    return wrong
