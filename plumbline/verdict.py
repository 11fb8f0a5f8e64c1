"""What a gate said: one type for the stages that pass it on and for the files that keep it.

Candidates, the ledger, releases and evidence hold a verdict as JSON under its gate's name: `verdict` ('passed' or
'failed'), `expectations`, `failed`, `report`, `accepted` where somebody let it through, and what this gate alone says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from plumbline.errors import Unreadable

PASSED, FAILED = "passed", "failed"


@dataclass(frozen=True)
class Acceptance:
    """A gate's findings on a day let through: `by` whom, `why`, and `at` which real time (ISO 8601, UTC)."""

    gate: str
    as_of: str
    why: str
    by: str
    at: str


@dataclass(frozen=True)
class Verdict:
    """One gate's word. `expectations` is how many were checked, `failed` a sentence for each that does not hold.

    `report` is where the evidence lies. A verdict that was `accepted` passed and still says what `failed`. `extra` is
    what this gate alone says, JSON values by name.
    """

    gate: str
    passed: bool
    expectations: int = 0
    failed: tuple[str, ...] = ()
    report: str | None = None
    accepted: Acceptance | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`passed` or `failed`, the word that files and labels of metrics hold."""
        return PASSED if self.passed else FAILED

    def as_dict(self) -> dict[str, Any]:
        """The same as files hold it, without the gate's name."""
        return {
            **self.extra,
            "verdict": self.verdict,
            "expectations": self.expectations,
            "failed": list(self.failed),
            "report": self.report,
            **({"accepted": asdict(self.accepted)} if self.accepted else {}),
        }


def from_dict(gate: str, found: object) -> Verdict:
    """A verdict from its JSON; what an older platform did not write is empty. Raises Unreadable for anything else."""
    if not isinstance(found, dict) or found.get("verdict") not in (PASSED, FAILED):
        raise Unreadable(f"gate {gate}: expected an object with a verdict, '{PASSED}' or '{FAILED}', found {found!r}")
    rest = {name: value for name, value in found.items() if name != "verdict"}
    count, failed = rest.pop("expectations", 0), rest.pop("failed", [])
    report, accepted = rest.pop("report", None), rest.pop("accepted", None)
    if type(count) is not int:
        raise Unreadable(f"gate {gate}: expected a whole number of expectations, found {count!r}")
    if not isinstance(failed, list) or not all(isinstance(sentence, str) for sentence in failed):
        raise Unreadable(f"gate {gate}: expected a list of sentences in failed, found {failed!r}")
    if report is not None and not isinstance(report, str):
        raise Unreadable(f"gate {gate}: expected a path in report, found {report!r}")
    let_through = None if accepted is None else _acceptance(gate, accepted)
    return Verdict(gate, found["verdict"] == PASSED, count, tuple(failed), report, let_through, rest)


def read(found: object, where: str) -> dict[str, Verdict]:
    """All verdicts of a file by their gates, none for None. Raises Unreadable that begins with `where`."""
    if found is None:
        return {}
    try:
        if not isinstance(found, dict):
            raise Unreadable(f"expected gates by name, found {found!r}")
        return {str(gate): from_dict(str(gate), one) for gate, one in found.items()}
    except Unreadable as error:
        raise Unreadable(f"{where}: {error}") from None


def of_event(event: Mapping[str, Any]) -> dict[str, Verdict]:
    """The verdicts in an event of the ledger. Raises Unreadable that names the event by its stage and time."""
    return read(event.get("gates"), f"the ledger's event of {event.get('stage')} at {event.get('at')}")


def as_dicts(verdicts: Mapping[str, Verdict]) -> dict[str, dict[str, Any]]:
    """Verdicts by their gates, as files hold them."""
    return {gate: verdict.as_dict() for gate, verdict in verdicts.items()}


def failed(verdicts: Iterable[Verdict]) -> list[str]:
    """The gates that stopped the line, sorted."""
    return sorted(verdict.gate for verdict in verdicts if not verdict.passed)


def _acceptance(gate: str, found: object) -> Acceptance:
    names = {one.name for one in fields(Acceptance)}
    if not isinstance(found, dict) or found.keys() != names or not all(isinstance(v, str) for v in found.values()):
        raise Unreadable(f"gate {gate}: expected in accepted the texts {sorted(names)}, found {found!r}")
    return Acceptance(**found)
