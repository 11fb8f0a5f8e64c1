"""What erasures left behind: which versions of a table can no longer be read, and since when.

`erased/<table>.json` holds `unreadable` (version → the day of the erasure) and `made_from`: a version that an erasure
wrote → the version whose remaining rows it holds. Release manifests never change, so what became of the versions that
they name is said here. Only an erasure writes it, under the product's leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plumbline.state import objects


def unreadable(table: str) -> dict[int, str]:
    """The versions whose files are gone because they held an erased customer, with the day (ISO 8601) of it."""
    return {int(version): str(day) for version, day in _of(table, "unreadable").items()}


def origins(table: str, version: int) -> list[int]:
    """The versions that this one holds the remaining rows of, nearest first; none for one that no erasure wrote."""
    made_from, found = _of(table, "made_from"), list[int]()
    while (before := made_from.get(str(found[-1] if found else version))) is not None:
        found.append(int(before))
    return found


def remaining(table: str, version: int) -> int | None:
    """The version that holds what an erasure left of this one: itself while it can be read, None where none does."""
    gone, made_from = unreadable(table), _of(table, "made_from")
    left = {int(before): int(after) for after, before in made_from.items()}
    while version in gone:
        if version not in left:
            return None
        version = left[version]
    return version


def record(table: str, unreadable: Mapping[int, str] | None = None, made_from: Mapping[int, int] | None = None) -> None:
    """Adds to what is known of a table; the first day that a version went stays."""
    given = {"unreadable": unreadable or {}, "made_from": made_from or {}}
    known = {name: {str(k): v for k, v in new.items()} | dict(_of(table, name)) for name, new in given.items()}
    objects.replace_json(_key(table), known)


def _of(table: str, name: str) -> dict[str, Any]:
    return (objects.read_json(_key(table)) or {}).get(name) or {}


def _key(table: str) -> str:
    return f"erased/{table}.json"
