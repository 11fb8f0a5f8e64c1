"""The ledger as numbers, read once: each look reads only the events that are new since the last one.

Events are immutable objects whose names begin with their time. On files the folder's time of change says whether there
is any; a bucket is asked for the names behind the newest that was seen, less a margin for clocks that differ. What no
reader can parse is reported and tried again at the next look: on a shared volume another machine may still write it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from plumbline import clock, verdict
from plumbline.state import ledger, objects
from plumbline.verdict import Verdict

STATES = {
    "START": "running",
    "COMPLETE": "complete",
    "FAIL": "fail",
    "GATE_FAILED": "gate_failed",
    "KILLED": "killed",
}
"""What a ledger's state is called in metrics."""

MARGIN = timedelta(minutes=5)
"""How late an event may appear in a bucket: its writer's clock may be behind, and a busy store is asked again."""

NAMED_BY_TIME = re.compile(r"(\d{8}T\d{12})-.*\.json")
SETTLED = 2.0
"""A folder that changed less than so many seconds ago may change again within the tick of its time stamp."""


@dataclass(frozen=True)
class Last:
    """The newest event of a stage: when (real time), in which state, of which run."""

    at: datetime
    state: str
    run_id: str


@dataclass(frozen=True)
class Judged:
    """A gate's newest verdict: when (real time), and by which stage."""

    at: datetime
    stage: str
    verdict: Verdict


@dataclass
class Told:
    """What a product's ledger says by now. `published` is when a release's stage ended, by real time; `rows` are those
    that a stage's newest run brought to tables, `splits` the newest dataset's, `cleaning` the newest one's totals."""

    stages: dict[str, Last] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    gates: dict[str, Judged] = field(default_factory=dict)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    landed: Counter[tuple[str, str]] = field(default_factory=Counter)
    landed_until: datetime | None = None
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    cleaning: dict[str, Any] | None = None
    mismatch_ratio: float | None = None
    online: int | None = None
    published: dict[int, datetime] = field(default_factory=dict)
    champion: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def champion_metrics(self) -> dict[str, float]:
        """The metrics of the champion's training run; none when its training is not in this ledger."""
        return self.metrics.get(self.models.get(self.champion or "", ""), {})


class LedgerTail:
    """One product's ledger, followed. `look` brings `told` up to date and gives what could not be read."""

    def __init__(self, product: str) -> None:
        self._folder = ledger.folder(product)
        self._seen: set[str] = set()
        self._bad: set[str] = set()
        self._changed = -1
        self.told = Told()

    def look(self) -> list[str]:
        """Reads what is new; the names of files that are no event, each time anew. No folder is an empty ledger."""
        for name in self._new():
            try:
                event = objects.read_json(f"{self._folder}/{name}")
                if event is not None:
                    _take(self.told, event)
                self._bad.discard(name)
            except (ValueError, TypeError, KeyError, AttributeError, OSError):
                self._bad.add(name)
            self._seen.add(name)
        return sorted(self._bad)

    def _new(self) -> list[str]:
        """The names of events that were not taken yet, oldest first; listed only when the folder changed."""
        changed = objects.changed_at(self._folder)
        if changed is not None and changed == self._changed:
            return sorted(self._bad)
        keys = objects.keys(self._folder, after=self._newest_less_margin())
        settled = changed is not None and clock.wall().timestamp() - changed / 1e9 > SETTLED
        self._changed = changed if changed is not None and settled else -1
        names = {key.rpartition("/")[2] for key in keys if key.endswith(".json")}
        return sorted((names - self._seen) | self._bad)

    def _newest_less_margin(self) -> str | None:
        """The key behind which a bucket lists; None on files, which always list whole, and before the first look."""
        if objects.on_files() or not self._seen:
            return None
        newest = max((found[1] for name in self._seen if (found := NAMED_BY_TIME.fullmatch(name))), default=None)
        if newest is None:
            return None
        at = min(datetime.strptime(newest, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC), clock.wall())
        return f"{self._folder}/{at - MARGIN:%Y%m%dT%H%M%S%f}"


def _take(told: Told, event: dict[str, Any]) -> None:
    """Takes one event in. Raises ValueError, TypeError or KeyError when it is none, with nothing taken."""
    at, stage, state = datetime.fromisoformat(event["at"]), str(event["stage"]), STATES[event["state"]]
    gates = verdict.of_event(event)
    run = Last(at, state, str(event.get("run_id", "")))
    facts = _FACTS.get((stage, state))
    taken = facts(event, at) if facts else {}
    before = told.stages.get(stage)
    if before is None or before.at <= at:
        told.stages[stage] = run
        if "seconds" in event:
            told.seconds[stage] = float(event["seconds"])
        _newest(told, taken)
        if state == "complete":
            told.rows[stage] = {str(table): int(n) for table, n in (event.get("rows") or {}).items() if "." in table}
            _forget(told, stage, gates)
    if state != "running":
        told.runs[stage, state] += 1
    for gate, found in gates.items():
        told.verdicts[gate, found.verdict] += 1
        if gate not in told.gates or told.gates[gate].at <= at:
            told.gates[gate] = Judged(at, stage, found)
    _more(told, taken)


def _newest(told: Told, taken: dict[str, Any]) -> None:
    """Facts of which only the stage's newest count."""
    for name in ("mismatch_ratio", "online", "champion", "landed_until", "splits", "cleaning"):
        if name in taken:
            setattr(told, name, taken[name])


def _forget(told: Told, stage: str, judged: Mapping[str, Verdict]) -> None:
    """Drops failures of gates that had nothing to judge when the stage was done: as after a change that was undone."""
    for gate, last in list(told.gates.items()):
        if last.stage == stage and gate not in judged and not last.verdict.passed:
            del told.gates[gate]


def _more(told: Told, taken: dict[str, Any]) -> None:
    """Facts that add up."""
    told.landed.update(taken.get("landed", {}))
    told.published |= taken.get("published", {})
    told.models |= taken.get("models", {})
    told.metrics |= taken.get("metrics", {})


def _ingested(event: dict[str, Any], at: datetime) -> dict[str, Any]:
    if "landed_until" not in event:  # of a product that lands no windows
        return {"landed": {(table, "landed"): int(n) for table, n in (event.get("rows") or {}).items()}}
    rows = {(f"raw.{table}", "landed"): int(n) for table, n in (event.get("landed") or {}).items()}
    return {"landed": rows, "landed_until": datetime.fromisoformat(event["landed_until"])}


def _quarantined(event: dict[str, Any], at: datetime) -> dict[str, Any]:
    if "quarantine" not in event:
        return {}
    return {"landed": {(f"raw.{table}", "quarantined"): int(n) for table, n in event["quarantined"].items()}}


def _released(event: dict[str, Any], at: datetime) -> dict[str, Any]:
    return {"published": {int(event["release_id"]): at}}


def _compared(event: dict[str, Any], at: datetime) -> dict[str, Any]:
    ratio = event.get("feature_parity_mismatch_ratio")
    return {} if ratio is None else {"mismatch_ratio": float(ratio)}


def _cleaned(totals: dict[str, Any]) -> dict[str, Any]:
    return {
        "clean": int(totals["total_clean"]),
        "groups": int(totals["near_duplicate_groups"]),
        "quarantined": {str(reason): int(n) for reason, n in totals["quarantined"].items()},
    }


_FACTS: dict[tuple[str, str], Callable[[dict[str, Any], datetime], dict[str, Any]]] = {
    ("ingest", "complete"): _ingested,
    ("ingest", "gate_failed"): _quarantined,
    ("release", "complete"): _released,
    ("undo", "complete"): _released,
    ("erase", "complete"): lambda event, at: _released(event, at) if "release_id" in event else {},
    ("materialize", "complete"): lambda event, at: {"online": int(event["release_id"])},
    ("parity_check", "complete"): _compared,
    ("parity_check", "gate_failed"): _compared,
    ("clean", "complete"): lambda event, at: {"cleaning": _cleaned(event["cleaning"])} if "cleaning" in event else {},
    ("dataset", "complete"): lambda event, at: {
        "splits": {str(split): int(n) for split, n in (event.get("split_counts") or event["rows"]).items()}
    },
    ("train", "complete"): lambda event, at: {
        "metrics": {str(event["model_id"]): {name: float(value) for name, value in event["metrics"].items()}}
    },
    ("register", "complete"): lambda event, at: (
        {"models": {str(event["version"]): str(event["model_id"])}} if "version" in event else {}
    ),
    ("deploy", "complete"): lambda event, at: {"champion": str(event["champion"])} if event.get("champion") else {},
}
"""What an event of a stage in a state says besides; read whole before anything is taken: a bad one takes none."""


def running_seconds(last: Last) -> float | None:
    """Real seconds since a start that no end has followed; None when the stage ended."""
    return max(0.0, (clock.wall() - last.at).total_seconds()) if last.state == "running" else None
