"""What a run has so far, kept until it is published; and the raw batches that no run builds on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.settings import settings
from plumbline.state import releases


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
    gates: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Writes the candidate whole, in one step."""
        files.write_whole(path_of(self.product, self.as_of), files.dumps(asdict(self)))


def rejected(product: str) -> list[str]:
    """The raw batches that a gate failed on, and those that only undone releases had.

    They stay in the raw tables and nothing is built from them.
    """
    release = releases.in_force(product)
    failed = (path.stem for path in (settings().home / "rejected" / product).glob("*.json"))
    return sorted({*failed, *(release.rejected if release else ())})


def path_of(product: str, as_of: date) -> Path:
    return settings().home / "runs" / product / f"{as_of}.json"
