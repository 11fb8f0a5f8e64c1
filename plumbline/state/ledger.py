"""The run ledger: one immutable object an event, so that nothing is lost to a crash or to two writers at once.

Events are `ledger/<product>/<time>-<stage>-<state>-<4 hex digits>.json`. A look-up lists the names once and reads only
the objects that it may want.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from plumbline import clock, verdict
from plumbline.errors import Unreadable
from plumbline.product import Product
from plumbline.progress import warn
from plumbline.state import erasures, objects


def record(product: str, event: dict[str, Any]) -> str:
    """Adds one event; `at` (real time, UTC) is set here, and given back."""
    at = clock.wall()
    name = f"{at:%Y%m%dT%H%M%S%f}-{event.get('stage', 'run')}-{event.get('state', 'EVENT')}-{secrets.token_hex(2)}.json"
    objects.create_json(f"{folder(product)}/{name}", {"at": at.isoformat(), **event})
    return at.isoformat()


def unended(product: str, stage: str) -> dict[str, Any] | None:
    """The stage's newest START, when no end has followed it and nobody has recorded it as killed.

    A clock that was set back leaves a START of the future, which stays the newest: it is killed once, not at each run.
    """
    killed = {event.get("began") for event in _readable(_keys(product, f"*-{stage}-KILLED-*.json"))}
    for key in reversed(_keys(product, f"*-{stage}-*.json")):
        if not fnmatchcase(key.rpartition("/")[2], f"*-{stage}-START-*.json"):
            return None
        for event in _readable([key]):
            if event.get("at") not in killed:
                return event
    return None


def events(product: str, unreadable: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All events of a product, oldest first.

    Raises Unreadable for an object that is no JSON; with a list, what is no event, or holds what is no verdict, is told
    there and left out instead.
    """
    for key in _keys(product, "*.json"):
        try:
            event, where = objects.read_json(key), objects.where(key)
            if event is not None and unreadable is not None and not event.keys() >= {"at", "stage", "state"}:
                raise Unreadable(f"{where}: expected an event with at, stage and state, found {sorted(event)}")
            if event is not None and unreadable is not None:
                verdict.read(event.get("gates"), where)
        except Unreadable as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
            continue
        if event is not None:
            yield event


def written_by(product: Product, table: str, version: int) -> dict[str, Any] | None:
    """The event of the stage that wrote this version of a table, None when the ledger has none.

    Only events of the stages that write the table by the product's page are read, the newest first. Of a version that
    an erasure wrote, the stage that wrote its rows counts.
    """
    writers = [stage.name for stage in product.stages if table in stage.flows] or ["*"]
    keys = _keys(product.name, *(f"*-{writer}-COMPLETE-*.json" for writer in writers))
    for event in _readable(reversed(keys)):
        if (event.get("wrote") or {}).get(table) == version:
            return event
    before = next(iter(erasures.origins(table, version)), None)
    return None if before is None else written_by(product, table, before)


def newest(product: str, stage: str, state: str) -> dict[str, Any] | None:
    """The newest event of a stage in that state that can be read, None when there is none."""
    return next(_readable(reversed(_keys(product, f"*-{stage}-{state}-*.json"))), None)


def folder(product: str) -> str:
    """The folder of a product's events, as a key's beginning."""
    return f"ledger/{product}"


def _readable(keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events under these keys; one that cannot be read (a full disk cut it) is named and left out."""
    for key in keys:
        try:
            event = objects.read_json(key)
        except Unreadable as error:
            warn(f"{error}; this event is left out. Move the file out of the ledger: no stage needs it")
            continue
        if event is not None:
            yield event


def _keys(product: str, *patterns: str) -> list[str]:
    """The keys of events whose names fit one of the patterns, oldest first."""
    keys = objects.keys(folder(product))
    return [key for key in keys if any(fnmatchcase(key.rpartition("/")[2], pattern) for pattern in patterns)]
