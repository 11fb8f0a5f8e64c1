"""The contracts of `contracts/*.odcs.yaml`: what each dataset promises, the one source for whoever checks or says it.

A file is an Open Data Contract Standard document (odcs.py reads it), with what Plumbline asks on top: an owner, a
channel, service levels, a version, a type for each column. `PLUMBLINE_CONTRACTS` names another folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from plumbline import clock
from plumbline.contracts.limits import Limits
from plumbline.contracts.quality import Rule
from plumbline.errors import PlumblineError
from plumbline.settings import ROOT, settings

SUFFIX = ".odcs.yaml"
RECORDED = "recorded_at"
"""When the shop recorded a row, in raw and unless its contract says otherwise: what landing's windows are over."""

NOTICE = timedelta(days=7)
"""How long before it takes effect a breaking change is announced."""

KINDS = {
    "bigint": "integer",
    "int": "integer",
    "float": "number",
    "double": "number",
    "date": "date",
    "timestamp": "timestamp",
    "string": "string",
    "boolean": "boolean",
    "array<float>": "array",
}
"""The physical types that a contract may name, as Delta has them, each with its logical one."""

LANDING = {
    "known_at": "timestamp",
    "batch_id": "string",
    "loaded_at": "timestamp",
    "deleted_at": "timestamp",
}
"""What landing adds to the shop's columns, or may; dlt's own begin with _dlt_."""

VERSION_ORDER = ("known_at", "loaded_at", "batch_id")
"""Of two versions of a key in raw the later one counts, by these columns in this order. dbt's marts say the same."""

UTC_ZONE = ZoneInfo("UTC")

NAME = re.compile(r"^[a-z][a-z0-9_]*$")


class ContractError(PlumblineError):
    """A contract is missing, malformed, or promises what nobody could keep."""


@dataclass(frozen=True)
class Column:
    """One column. `minimum` and `maximum` are as stated and inclusive; `limits` add what the physical type holds.

    `not_after_run`: never dated behind the day that a run covers, by the shop's calendar.
    """

    name: str
    kind: str
    type: str
    description: str
    required: bool
    unique: bool
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    limits: Limits = field(default_factory=Limits)
    not_after_run: bool = False
    why: str = ""


@dataclass(frozen=True)
class Rename:
    """A column that gets another name at `effective`, 00:00 UTC; until then both are there, filled."""

    old: str
    new: str
    announced: date
    effective: date

    def over(self) -> bool:
        """Whether the notice has ended, by the platform's clock."""
        return clock.now().date() >= self.effective

    def stands(self) -> bool:
        """Whether it is announced by now, by the platform's clock, and at least NOTICE before it takes effect."""
        return self.announced <= clock.now().date() and self.effective - self.announced >= NOTICE

    def told(self) -> str:
        """As it stands in messages."""
        return f"{self.old} becomes {self.new} on {self.effective}, announced {self.announced}"


@dataclass(frozen=True)
class Level:
    """A service level; `objective` is the percentage of days on which it holds, where it is not always."""

    property: str
    value: str | float
    unit: str
    element: str
    description: str
    objective: float | None


@dataclass(frozen=True)
class ClosedDays:
    """The days on which a shop takes no order: months with days of each year, and single dates."""

    yearly: frozenset[tuple[int, int]] = frozenset()
    once: frozenset[date] = frozenset()

    def __contains__(self, day: date) -> bool:
        return (day.month, day.day) in self.yearly or day in self.once


@dataclass(frozen=True)
class Contract:
    """What one dataset promises. `key` names the columns that together tell one row from another, `rules` are those of
    the whole table.

    Of a shop's table: `zone` is the time zone of its calendar, `left_out` names columns that do not land, `recorded`
    the column that says when a row was recorded. None: no column does, and landing compares keys and values.
    `daily_rows` is how many rows it records at least on each open day.
    """

    dataset: str
    product: str
    physical: str
    version: str
    title: str
    purpose: str
    usage: str
    limitations: str
    grain: str
    team: str
    owner: str
    channel: str
    path: Path
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    levels: tuple[Level, ...]
    renames: tuple[Rename, ...]
    zone: ZoneInfo = UTC_ZONE
    closed_days: ClosedDays = ClosedDays()
    left_out: tuple[str, ...] = ()
    recorded: str | None = RECORDED
    rules: tuple[Rule, ...] = ()
    daily_rows: int = 0

    @property
    def file(self) -> str:
        """The file's name for messages."""
        if self.path.parent == folder():
            return f"contracts/{self.path.name}"
        return str(self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path)

    def standing(self) -> list[Rename]:
        """The renames that were announced in time: both names are known, before and after they take effect."""
        return [rename for rename in self.renames if rename.stands()]

    def last_date(self, as_of: date) -> date:
        """The newest date that a row recorded by the end of a day (UTC) may have, by the shop's calendar."""
        return (clock.end_of(as_of) - timedelta(microseconds=1)).astimezone(self.zone).date()

    def end_of_date(self, day: date) -> datetime:
        """The last microsecond (UTC) of a day of the shop's calendar: when a row with a date counts as recorded."""
        following = day + timedelta(days=1)
        midnight = datetime(following.year, following.month, following.day, tzinfo=self.zone)
        return midnight.astimezone(UTC) - timedelta(microseconds=1)

    def last_ended(self, moment: datetime) -> date:
        """The newest day of the shop's calendar that is over by a moment."""
        return moment.astimezone(self.zone).date() - timedelta(days=1)

    def closed_on(self, day: date) -> bool:
        """Whether the shop is closed on what a day by UTC brings: the date that ends in it where rows have a date, else
        the date of its noon by the shop's calendar."""
        recorded = self.columns.get(self.recorded or "")
        if recorded is not None and recorded.kind == "date":
            return self.last_ended(clock.end_of(day)) in self.closed_days
        noon = clock.end_of(day) - timedelta(hours=12)
        return noon.astimezone(self.zone).date() in self.closed_days

    def accepted(self, column: str) -> tuple[str, ...]:
        """The names under which a column may be delivered today: during a notice either, after it the new one."""
        for rename in self.standing():
            if column in (rename.old, rename.new):
                return (rename.new,) if rename.over() else (rename.new, rename.old)
        return (column,)


def folder() -> Path:
    """Where the contracts are."""
    return settings().contracts


def load(dataset: str) -> Contract:
    """The contract of a dataset. Raises ContractError that names the file and the place in it."""
    path = _path(dataset)
    if not path.exists():
        known = sorted(file.name.removesuffix(SUFFIX) for file in folder().glob(f"*{SUFFIX}"))
        raise ContractError(f"there is no contract of {dataset} at {path}; there are {', '.join(known) or 'none'}")
    return _load(path, path.stat().st_mtime_ns)


def _path(dataset: str) -> Path:
    """The file of a dataset's contract: the shop's own, or the one that all shops share."""
    name = f"{dataset}{SUFFIX}"
    own = settings().shop_folder / "contracts" / name
    return own if own.exists() else folder() / name


def shop(table: str) -> Contract:
    """The contract of a table of the shop, by the name that it has there."""
    return load(f"shop.{table}")


def of_table(table: str) -> Contract:
    """The contract that a lake table's rows keep: a raw table's is that of the shop's table."""
    schema, _, name = table.partition(".")
    return shop(name) if schema == "raw" else load(table)


def calendar(dataset: str) -> Contract:
    """The contract whose calendar and ranges a mart's columns follow: that of the shop's table, or its own."""
    source = f"shop.{dataset.partition('.')[2].removesuffix('_history')}"
    return load(source if _path(source).exists() else dataset)


@cache
def _load(path: Path, changed: int) -> Contract:
    from plumbline.contracts import odcs

    return odcs.read(path)
