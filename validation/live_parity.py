"""The live half of parity: a stream's rows online against its table, and answers against the rows that they name.

A stream goes on while this looks. So its mark is read first, Redis then and the table last: what the table knew by the
mark must be online, or what came after it, and each row online must stand in the table as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.servers import live_mark, online_store
from validation.mismatch import Compared, Mismatch
from validation.point_in_time import Entity, Offline, Row, missing_as_none, same


class Online(Protocol):
    """The online rows of one live view."""

    names: list[str]
    ttl: timedelta
    defined_ttl: timedelta

    def entities(self) -> set[Entity]: ...
    def read(self, entities: list[Entity]) -> Iterator[tuple[Entity, datetime | None, dict[str, Any]]]: ...


def views(product: Product) -> dict[str, str]:
    """The live views of a product whose stream has written, each with its table."""
    return {view: table for view, table in product.streams.items() if lake.version(table) is not None}


def compare(product: Product, view: str, online: Online, release_id: int) -> Compared:
    """Every value of every entity that has a row on one of both sides, expired ones left out."""
    found = Compared(values=1)
    if online.ttl != online.defined_ttl:
        found.mismatches.append(Mismatch(None, f"{view}'s ttl", online.ttl, online.defined_ttl, release_id))
    upto = live_mark.upto(online_store.client(), product, view)
    rows = {entity: (stamp, values) for entity, stamp, values in online.read(sorted(online.entities()))}
    offline = _offline(product, view, online.names, online.defined_ttl)
    oldest, end = clock.now() - online.defined_ttl, clock.now() if upto is None else upto.known_at
    due = {entity: row for entity, row in offline.newest(end).items() if row.event_time >= oldest}
    if upto is None:
        if due:
            newest = max(row.event_time for row in due.values())
            found.mismatches.append(Mismatch(None, f"the mark of {view}", None, newest, release_id))
        return found
    later = [(entity, stamp) for entity, (stamp, _) in rows.items() if stamp is not None and stamp > end]
    newer = {entity: row for (entity, _), row in zip(later, offline.joined(later), strict=True) if row}
    for entity in sorted(rows.keys() | due.keys()):
        stamp, values = rows.get(entity, (None, {}))
        row = newer.get(entity, due.get(entity))
        if row is None and stamp is not None and stamp < oldest:
            continue
        found.entities += 1
        found.values += 1 + len(online.names)
        theirs = {"event_time": row.event_time, **row.values} if row else {}
        for name, ours in {"event_time": stamp, **{name: values.get(name) for name in online.names}}.items():
            if not same(missing_as_none(ours), theirs.get(name)):
                found.mismatches.append(Mismatch(entity, f"{view}.{name}", ours, theirs.get(name), release_id))
    return found


class Answered:
    """What the stored live part of logged answers must be: that of the row which the answer names."""

    def __init__(
        self,
        product: Product,
        online: Mapping[str, Online],
        rows: Sequence[dict[str, Any]],
    ) -> None:
        """`rows` are those of the outcome log, whose column for a view's event_time is `stamp_of` it."""
        self._entity, self._known = product.entity, dict[tuple[str, Entity, datetime], Row | None]()
        self._names = {view: one.names for view, one in online.items()}
        for view, one in online.items():
            named = {(row[product.entity], stamp) for row in rows if (stamp := row.get(stamp_of(view)))}
            asked = sorted(named)
            joined = _offline(product, view, one.names, one.defined_ttl).joined(asked) if asked else []
            for (entity, stamp), row in zip(asked, joined, strict=True):
                self._known[view, entity, stamp] = row if row and row.event_time == stamp else None

    def values(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """By name what an answer must hold of all live views: nulls without a row, or where no such row is known."""
        found: dict[str, Any] = {}
        for view, names in self._names.items():
            stamp = answer.get(stamp_of(view))
            row = self._known.get((view, answer[self._entity], stamp)) if stamp else None
            found |= row.values if row else dict.fromkeys(names)
        return found


def stamp_of(view: str) -> str:
    """The column of the outcome log with the event_time of a live view's row."""
    return f"{view.rpartition('_')[2]}_event_time"


def _offline(product: Product, view: str, names: Iterable[str], ttl: timedelta) -> Offline:
    table = product.streams[view]
    version = lake.version(table)
    assert version is not None  # noqa: S101 (the stream has written)
    return Offline(table, version, product.entity, ttl, list(names))
