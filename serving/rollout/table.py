"""A rollout as a terminal shows it while it goes: weights, requests, KPIs, guardrails, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.display import terminal
from plumbline.progress import say
from serving.rollout.driver import Shown
from serving.rollout.machinery import Machinery
from serving.rollout.state import Status

if TYPE_CHECKING:
    from rich.console import Group

COLORS = {"Healthy": "green", "Aborted": "red", "Paused": "yellow"}
MARKS = {"Successful": "green", "Failed": "red", "Error": "red", "Inconclusive": "yellow"}
LINE_EVERY = 5.0
"""Seconds between two lines where output is not a terminal."""


@contextmanager
def live() -> Iterator[Shown]:
    """What to give a driver as `shown`: a table that changes in place, or a line now and then in a log."""
    console = terminal.console(140)
    if not console.is_terminal:
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=console, refresh_per_second=4, transient=False) as shown:
        yield lambda status, laptop: shown.update(rendered(status))


def rendered(status: Status) -> Group:
    """The whole table of a rollout."""
    from rich.console import Group

    return Group(_head(status), _sides(status), _kpis(status), _guardrails(status))


def line(status: Status) -> str:
    """The same in one line."""
    told = [f"canary {status.weight} %", f"{status.exposed:,} requests to it"]
    for kpi, found in _kpis_of(status).items():
        if "difference" in found:
            told.append(f"{kpi} {found['difference']:+.4f} (p {found.get('p_value', 1):.3f})")
    return f"{status.phase.lower()}: {', '.join(told)}; {status.message}"


class _Lines:
    """A line when something changed, and every few seconds."""

    def __init__(self) -> None:
        self._said: tuple[Any, ...] = ()
        self._at = 0.0

    def __call__(self, status: Status, machinery: Machinery) -> None:
        now, what = clock.monotonic(), (status.phase, status.weight, status.message)
        if what != self._said or now - self._at >= LINE_EVERY:
            self._said, self._at = what, now
            say(line(status))


def _head(status: Status) -> str:
    color = COLORS.get(status.phase, "cyan")
    traffic = f"   [yellow]{status.traffic.upper()} traffic and outcomes[/yellow]" if status.traffic else ""
    return f"\n[bold]Rollout {status.number}[/bold]   [{color}]{status.phase}[/{color}]   {status.message}{traffic}"


def _sides(status: Status) -> Any:
    made = terminal.table("", "", "model version", "revision", "weight", "requests", right=("weight", "requests"))
    sample = status.samples[-1] if status.samples else {"stable": 0}
    first = status.samples[0]["stable"] if status.samples else 0
    done = status.phase == "Healthy"
    weights = {"stable": 0 if done else 100 - status.weight, "canary": 100 if done else status.weight}
    requests = {"stable": sample["stable"] - first, "canary": status.exposed}
    for side, about in (("stable", status.stable), ("canary", status.canary)):
        made.add_row(side, about["version"], about["revision"], f"{weights[side]} %", f"{requests[side]:,}")
    return made


def _kpis_of(status: Status) -> dict[str, dict[str, float]]:
    kpis: list[dict[str, dict[str, float]]] = [sample["kpis"] for sample in status.samples if sample["kpis"]]
    told = kpis[-1] if kpis else {}
    return {name: found for name, found in told.items() if name != "score"}


def _kpis(status: Status) -> Any:
    made = terminal.table(
        "", "KPI", "canary − stable", "confidence sequence", "p", "outcomes, canary", "outcomes, stable"
    )
    for name, found in _kpis_of(status).items():
        made.add_row(
            name + (f" ({status.traffic})" if status.traffic else ""),
            f"{found['difference']:+.4f}" if "difference" in found else "–",
            f"{found['lower']:+.4f} to {found['upper']:+.4f}" if {"lower", "upper"} <= set(found) else "–",
            f"{found['p_value']:.4f}" if "p_value" in found else "–",
            f"{found.get('canary', 0):,.0f}",
            f"{found.get('stable', 0):,.0f}",
        )
    return made


def _guardrails(status: Status) -> Any:
    made = terminal.table("", "guardrail", "last reading", "verdict", "readings")
    last = {item["metric"]: item for item in status.measurements}
    for name, item in last.items():
        count = sum(other["metric"] == name for other in status.measurements)
        color = MARKS[item["phase"]]
        made.add_row(name, item["message"][:70], f"[{color}]{item['phase']}[/{color}]", f"{count}")
    return made
