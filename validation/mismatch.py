"""A value that is one thing online and another offline, and how many of them are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from plumbline import files

SAMPLES = 3


@dataclass(frozen=True)
class Mismatch:
    """One value of one entity: `online` as Redis held it, or as it was answered to `request_id`; `offline` as the
    release has it. None is missing; without an entity it is something that all rows share."""

    entity: int | str | None
    feature: str
    online: Any
    offline: Any
    release_id: int
    request_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the evidence; a list of numbers as its digest."""
        return {**asdict(self), "online": _plain(self.online), "offline": _plain(self.offline)}


@dataclass
class Compared:
    """Of `entities` compared, `values` values; `expired` ones have no row that may be served, on either side."""

    entities: int = 0
    values: int = 0
    expired: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


def told(mismatches: Iterable[Mismatch], entities: str) -> list[str]:
    """A line for each feature: how many entities (`entities` is the word for them), and some with both values."""
    by_feature: dict[str, list[Mismatch]] = {}
    for found in mismatches:
        by_feature.setdefault(found.feature, []).append(found)
    return [_line(feature, found, entities) for feature, found in by_feature.items()]


def _line(feature: str, found: list[Mismatch], entities: str) -> str:
    count, one = len({each.entity for each in found}), entities.removesuffix("s")
    if any(each.entity is None for each in found):
        return f"{feature}: online {_shown(found[0].online)}, offline {_shown(found[0].offline)}"
    such = "; ".join(
        f"{one} {each.entity}"
        + (f", request {each.request_id}" if each.request_id else "")
        + f": online {_shown(each.online)}, offline {_shown(each.offline)}"
        for each in found[:SAMPLES]
    )
    return f"{feature} of {count:,} {one if count == 1 else entities}, such as {such}"


def _plain(value: Any) -> Any:
    return f"{len(value) // 4:,} numbers of sha256 {files.sha256(value)[:12]}" if isinstance(value, bytes) else value


def _shown(value: Any) -> str:
    value = _plain(value)
    return "none" if value is None else repr(value) if isinstance(value, float) else str(value)
