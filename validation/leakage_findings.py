"""What a leakage gate looks at, and what it says of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KEYS = 5
LIMITS = Path(__file__).with_name("leakage.yaml")
"""Every leakage gate's limits, by the gate's name."""


@dataclass(frozen=True)
class Audited:
    """A dataset under audit: dataset.json, and its rows with `day`, the observed day, in days since 1970-01-01."""

    about: dict[str, Any]
    rows: pd.DataFrame

    @property
    def features(self) -> list[str]:
        """The model's inputs."""
        return list(self.about["features"])

    def version(self, named: str) -> int:
        """The Delta version in a name of dataset.json: `data_version`, `orders_version`."""
        return int(str(self.about[named]).rpartition("=")[2])


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `value` against `limit`, how many rows it concerns and the keys of some."""

    what: str
    failed: bool
    told: str
    value: float
    limit: float
    rows: int = 0
    keys: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return asdict(self)


def counted(what: str, wrong: pd.DataFrame, limit: float, broken: str) -> Finding:
    """A finding on rows that should not be there: it fails when there are more than `limit`."""
    keys = keys_of(wrong)
    told = f"{len(wrong):,} rows {broken}, such as {'; '.join(keys)}" if len(wrong) else f"0 rows {broken}"
    return Finding(what, len(wrong) > limit, told, float(len(wrong)), float(limit), len(wrong), keys)


def keys_of(rows: pd.DataFrame) -> list[str]:
    """`customer N at <moment>` for a few of the rows; the first column called `…_id` says whose they are."""
    head, entity = rows.head(KEYS), next(name for name in rows.columns if name.endswith("_id"))
    return [
        f"{entity.removesuffix('_id')} {whose} at {moment:%Y-%m-%d}"
        for whose, moment in zip(head[entity], head["event_timestamp"], strict=True)
    ]
