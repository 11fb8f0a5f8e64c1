"""The run ledger: one immutable object an event, so that nothing is lost to a crash or to two writers at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from plumbline import clock, files, verdict
from plumbline.errors import Unreadable
from plumbline.settings import settings


def record(product: str, event: dict[str, Any]) -> str:
    """Adds one event; `at` (real time, UTC) is set here, and given back."""
    at = clock.wall()
    name = f"{at:%Y%m%dT%H%M%S%f}-{event.get('stage', 'run')}-{event.get('state', 'EVENT')}-{secrets.token_hex(2)}.json"
    path = settings().home / "ledger" / product / name
    files.create_once(path, files.dumps({"at": at.isoformat(), **event}))
    return at.isoformat()


def unended(product: str, stage: str) -> dict[str, Any] | None:
    """The stage's newest event, when that is a START that no end has followed."""
    newest = max((settings().home / "ledger" / product).glob(f"*-{stage}-*.json"), default=None)
    found = files.read_json(newest) if newest else None
    return found if found and found["state"] == "START" else None


def events(product: str, unreadable: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All events of a product, oldest first.

    Raises Unreadable for a file that is no JSON; with a list, what is no event, or holds what is no verdict, is told
    there and left out instead.
    """
    for path in sorted((settings().home / "ledger" / product).glob("*.json")):
        try:
            found = files.read_json(path)
            if found is not None and unreadable is not None and not found.keys() >= {"at", "stage", "state"}:
                raise Unreadable(f"{path}: expected an event with at, stage and state, found {sorted(found)}")
            if found is not None and unreadable is not None:
                verdict.read(found.get("gates"), str(path))
        except Unreadable as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
            continue
        if found is not None:
            yield found


def written_by(product: str, table: str, version: int) -> dict[str, Any] | None:
    """The event of the stage that wrote this version of a table, None when the ledger has none."""
    for path in sorted((settings().home / "ledger" / product).glob("*-COMPLETE-*.json"), reverse=True):
        found = files.read_json(path) or {}
        if (found.get("wrote") or {}).get(table) == version:
            return found
    return None


def newest(product: str, stage: str, state: str) -> dict[str, Any] | None:
    """The newest event of a stage in that state, None when there is none."""
    path = max((settings().home / "ledger" / product).glob(f"*-{stage}-{state}-*.json"), default=None)
    return files.read_json(path) if path else None
