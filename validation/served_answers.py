"""Replay of served answers: what each was made of, against the point-in-time join at the release that was online then.

Which release that was is in the ledger: a release's rows may be read from the start of its materialization until the
next one is complete. In between an answer may be of either, and one of them it must equal.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.state import ledger, releases
from validation import live_parity, point_in_time
from validation.mismatch import Mismatch
from validation.point_in_time import Entity, Offline, Row

if TYPE_CHECKING:
    import pyarrow as pa

UNDER_WAY = timedelta(seconds=5)
"""How long before it was logged an answer may have read its features. Redis has one second to answer, twice."""

OnDemand = Callable[[list[dict[str, Any]], list[int]], list[dict[str, Any]]]
"""(rows with the table's features, request times in seconds since 1970) to what is computed on demand, row by row."""

_Span = tuple[int, datetime, datetime | None]
"""A release, and from when until when it was online, in real time; None for until now."""

_Made = dict[tuple[Entity, datetime], tuple[Row | None, dict[str, Any]]]
"""By entity and moment, the row of the join and what is computed on demand from it."""


@dataclass(frozen=True)
class Replayed:
    """What came of a replay: `logged` answers since the last check, `rows` of them held against the join, `unreadable`
    left out because their release's tables are gone; `version` of the log is where the next one goes on."""

    logged: int = 0
    rows: int = 0
    unreadable: int = 0
    compared: int = 0
    version: int | None = None
    mismatches: list[Mismatch] = field(default_factory=list)


def replay(
    product: Product,
    names: list[str],
    ttl: timedelta,
    on_demand: OnDemand,
    streams: Mapping[str, live_parity.Online],
    *,
    most: int,
    seed: int,
    since: datetime | None,
) -> Replayed:
    """Replays a seeded sample of at most `most` answers logged since the last check that passed, or since a real time.

    `names` are the features that the table stores; `streams` the online rows of each live view.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    version = lake.version(product.log)
    if version is None:
        return Replayed()
    events = list(ledger.events(product.name))
    found = _since(product.log, version, since, _checked(events))
    found = found.filter(pc.is_valid(found["release_id"]))  # what was answered from the request alone read nothing
    rows = found.take(pa.array(_sample(len(found), most, seed), pa.int64())).to_pylist()
    mismatches: list[Mismatch] = []
    compared = replayed = 0
    online = _online(events)
    joins = _Joins(product, names, ttl, on_demand, rows, online, live_parity.Answered(product, streams, rows))
    for row in rows:
        outcomes = [joins.compare(row, number) for number in _then(online, row)]
        found_wrong = [outcome.mismatches for outcome in outcomes if outcome]
        if None in outcomes and all(found_wrong):
            continue  # what it may have been made of is gone
        replayed += 1
        compared += max(outcome.values for outcome in outcomes if outcome)
        mismatches += min(reversed(found_wrong), key=bool)
    return Replayed(len(found), replayed, len(rows) - replayed, compared, version, mismatches)


@dataclass(frozen=True)
class _Outcome:
    """`values` of one answer compared, and those that differ."""

    values: int
    mismatches: list[Mismatch]


class _Joins:
    """The join at each release that is asked for, made once for all of the rows that may be of it."""

    def __init__(
        self,
        product: Product,
        names: list[str],
        ttl: timedelta,
        on_demand: OnDemand,
        rows: list[dict[str, Any]],
        online: list[_Span],
        live: live_parity.Answered,
    ) -> None:
        self._product = product
        self._names, self._ttl, self._on_demand = names, ttl, on_demand
        self._rows, self._online, self._live = rows, online, live
        self._made: dict[tuple[int, str], _Made | None] = {}

    def compare(self, row: dict[str, Any], number: int) -> _Outcome | None:
        """An answer at a release; None when its tables cannot be read."""
        key = number, row.get("view") or self._product.view
        if key not in self._made:
            self._made[key] = self._make(*key)
        made = self._made[key]
        if made is None:
            return None
        joined, computed = made[row[self._product.entity], row["at"]]
        stored = {**dict.fromkeys(self._names), **(joined.values if joined else {})}
        offline = {**stored, **computed}
        if live := self._live.values(row):
            given = {**live, **stored}  # what is computed may be made of both
            offline = given | self._on_demand([given], [int(row["at"].timestamp())])[0]
        online = {name: point_in_time.missing_as_none(value) for name, value in json.loads(row["features"]).items()}
        online["release_id"] = row["release_id"]
        pairs = [("event_time", row["event_time"], joined.event_time if joined else None)]
        pairs += [(name, value, offline.get(name)) for name, value in online.items()]
        wrong = [
            Mismatch(row[self._product.entity], name, ours, theirs, number, row["request_id"])
            for name, ours, theirs in pairs
            if not point_in_time.same(ours, _digest(theirs))
        ]
        return _Outcome(len(pairs), wrong)

    def _make(self, number: int, view: str) -> _Made | None:
        of_view = (row for row in self._rows if (row.get("view") or self._product.view) == view)
        of_it = (row for row in of_view if number in _then(self._online, row))
        asked = list(dict.fromkeys((row[self._product.entity], row["at"]) for row in of_it))
        try:
            table = self._product.views[view]
            version = lake.remaining(table, releases.read(self._product.name, number).version(table)).version()
            found = Offline(table, version, self._product.entity, self._ttl, self._names).joined(asked)
        except (PlumblineError, FileNotFoundError):  # retention has been here
            return None
        nothing = dict.fromkeys(self._names)
        computed = self._on_demand(
            [row.values if row else nothing for row in found], [int(moment.timestamp()) for _, moment in asked]
        )
        return dict(zip(asked, zip(found, computed, strict=True), strict=True))


def _digest(value: Any) -> Any:
    """A value as the log has it: a hex digest stands for a list's bytes."""
    return files.sha256(value) if isinstance(value, bytes) else value


def _checked(events: list[dict[str, Any]]) -> int | None:
    """The version of the log that the last check which passed went up to."""
    told = [event for event in events if event["stage"] == "parity_check" and event["state"] == "COMPLETE"]
    return told[-1].get("predictions_version") if told else None


def _since(log: str, version: int, since: datetime | None, checked: int | None) -> pa.Table:
    """The log's rows from a real time on, else those of the files that came after the version `checked`.

    Rows are logged late and out of order, so a time alone could pass some over. A table that was compacted, or whose
    old versions are gone, gives rows again that were checked before.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    table = lake.open_table(log, version)
    if since is not None:
        return table.to_pyarrow_dataset().to_table(filter=pc.field("logged_at") >= since)
    try:
        before = set(lake.open_table(log, checked).file_uris()) if checked is not None else set()
    except lake.LakeError:
        before = set()
    whole = table.to_pyarrow_dataset()
    if not before:
        return whole.to_table()
    names = {uri.rpartition("/")[2] for uri in before}
    fresh = [part for part in whole.get_fragments() if part.path.rpartition("/")[2] not in names]
    if not fresh:
        return whole.schema.empty_table()
    return pa.concat_tables([ds.FileSystemDataset([p], whole.schema, p.format, p.filesystem).to_table() for p in fresh])


def _sample(rows: int, most: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(rows), min(rows, most)))  # noqa: S311 (which answers is no secret)


def _online(events: list[dict[str, Any]]) -> list[_Span]:
    """When each release's rows may have been read, oldest first: from the start of its materialization, killed or not,
    to the end of the next other one's."""
    told = [event for event in events if event["stage"] == "materialize"]
    spans = []
    for i, event in enumerate(told):
        if event["state"] == "START":
            number = event["release_id"]
            others = (e["at"] for e in told[i + 1 :] if e["state"] == "COMPLETE" and e["release_id"] != number)
            until = next(others, None)
            spans.append(
                (number, datetime.fromisoformat(event["at"]), datetime.fromisoformat(until) if until else None)
            )
    return spans


def _then(online: list[_Span], row: dict[str, Any]) -> list[int]:
    """The releases whose rows an answer may have read, oldest first; the one its row names if the ledger knows none."""
    last = row["logged_at"]
    first = last - UNDER_WAY
    found = [number for number, start, until in online if start <= last and (until is None or until >= first)]
    return list(dict.fromkeys(found)) or [row["release_id"]]
