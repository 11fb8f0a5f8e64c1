"""What a run has so far, kept until it is published; and the raw batches that no run builds on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from plumbline import files, verdict
from plumbline.errors import Unreadable
from plumbline.settings import settings
from plumbline.state import releases
from plumbline.verdict import Verdict


@dataclass
class Candidate:
    """What a run has so far: table versions written, gate verdicts, and an entry for each stage that is done.

    `rejected` names the raw batches that this run leaves out, because a gate failed on them.
    """

    run_id: str
    product: str
    as_of: date
    base: int | None
    tables: dict[str, int] = field(default_factory=dict)
    gates: dict[str, Verdict] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Writes the candidate whole, in one step."""
        files.write_whole(
            path_of(self.product, self.as_of), files.dumps(asdict(self) | {"gates": verdict.as_dicts(self.gates)})
        )


def read(product: str, as_of: date) -> Candidate | None:
    """The run of a day, None when there is none. Raises Unreadable when its file holds none."""
    path = path_of(product, as_of)
    found = files.read_json(path)
    if found is None:
        return None
    try:
        return Candidate(**{**found, "as_of": as_of, "gates": verdict.read(found["gates"], str(path))})
    except (KeyError, TypeError) as error:
        raise Unreadable(f"{path}: expected what a run has so far, found another object: {error}") from None


def rejected(product: str) -> list[str]:
    """The raw batches that a gate failed on, and those that only undone releases had.

    They stay in the raw tables and nothing is built from them.
    """
    release = releases.in_force(product)
    failed = (path.stem for path in (settings().home / "rejected" / product).glob("*.json"))
    return sorted({*failed, *(release.rejected if release else ())})


def path_of(product: str, as_of: date) -> Path:
    return settings().home / "runs" / product / f"{as_of}.json"
