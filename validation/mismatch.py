"""A value that is one thing online and another offline, and how many of them are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SAMPLES = 3


@dataclass(frozen=True)
class Mismatch:
    """One value of one customer: `online` as Redis held it, or as it was answered to `request_id`; `offline` as the
    release has it. None is missing; without a customer it is something that all rows share."""

    customer_id: int | None
    feature: str
    online: Any
    offline: Any
    release_id: int
    request_id: str | None = None


def told(mismatches: Iterable[Mismatch]) -> list[str]:
    """A line for each feature: how many customers, and some of them with both values."""
    by_feature: dict[str, list[Mismatch]] = {}
    for found in mismatches:
        by_feature.setdefault(found.feature, []).append(found)
    return [_line(feature, found) for feature, found in by_feature.items()]


def _line(feature: str, found: list[Mismatch]) -> str:
    customers = {each.customer_id for each in found}
    if None in customers:
        return f"{feature}: online {_shown(found[0].online)}, offline {_shown(found[0].offline)}"
    such = "; ".join(
        f"customer {each.customer_id}"
        + (f", request {each.request_id}" if each.request_id else "")
        + f": online {_shown(each.online)}, offline {_shown(each.offline)}"
        for each in found[:SAMPLES]
    )
    return f"{feature} of {len(customers):,} customer{'' if len(customers) == 1 else 's'}, such as {such}"


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value) if isinstance(value, float) else str(value)
