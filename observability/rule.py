"""What a rules file is made of: recording rules, alerts, and what every alert must say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from observability.way_back import WayBack
from plumbline.contracts.contract import Contract

EXPORTER = "exporter"
"""Prometheus' job of the exporter."""

RUNBOOKS = "docs/runbooks"

Severity = Literal["page", "ticket", "none"]

WATCHDOG = "Watchdog"
"""The alert that always fires: whoever stops hearing it knows that nobody watches."""


@dataclass(frozen=True)
class Recording:
    """A series that Prometheus computes."""

    record: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a rules file."""
        return {"record": self.record, "expr": self.expr} | ({"labels": self.labels} if self.labels else {})


@dataclass(frozen=True)
class Alert:
    """An alert. `page`: customers are about to feel it, or nobody would know if they did; `ticket`: it can wait;
    `none`: a sign of life, for the watchdog alone.

    `way_back` is how on-call gets back from it, `affected` what is downstream. `seconds` is how long the expression
    holds before it fires, `kept` how long it fires after that. `about` are labels that tell one such alert from
    another.
    """

    name: str
    expr: str
    severity: Severity
    contract: Contract
    summary: str
    way_back: WayBack
    affected: tuple[str, ...] = ()
    seconds: int = 0
    about: dict[str, str] = field(default_factory=dict)
    kept: int = 0

    @property
    def description(self) -> str:
        """The way back in a sentence."""
        return self.way_back.sentence.format(alert=self.name)

    @property
    def runbook(self) -> str:
        """The runbook's path in the repository."""
        return f"{RUNBOOKS}/{self.name}.md"

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a rules file; the contract says whose it is and where it is told."""
        labels = {
            "severity": self.severity,
            "owner": self.contract.owner,
            "channel": self.contract.channel,
            "affected": ", ".join(sorted(self.affected, key=_felt_later)) or "nothing downstream",
            **self.about,
        }
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": f"{self.seconds}s"} if self.seconds else {}),
            **({"keep_firing_for": f"{self.kept}s"} if self.kept else {}),
            "labels": labels,
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": self.runbook,
            },
        }


def _felt_later(dataset: str) -> int:
    """Sorts what customers meet before what only the platform does: a narrow column shows the beginning."""
    return next((n for n, kind in enumerate(("customers", "endpoints.", "online.")) if dataset.startswith(kind)), 3)


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, in their order."""

    name: str
    rules: tuple[Recording | Alert, ...]

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a rules file."""
        return {"name": self.name, "rules": [rule.as_dict() for rule in self.rules]}


def alerts(groups: Iterable[Group]) -> list[Alert]:
    """The alerts among the rules."""
    return [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
