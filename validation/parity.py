"""The gate `parity`: what is online equals what the release has offline, bit for bit, and so did what was answered.

Read are the online rows by Feast's own decoding and the release's Delta version by delta-rs; nothing is trusted that
materialization said. When it fails, rows that differ are taken out of Redis, and so is the mark that a release is
online: a predictor then refuses these customers (503) and goes on with those whose rows were just found equal. A wrong
score looks like a right one to whoever gets it, a refusal does not; and without the mark `plumb materialize` writes
every row again, where it would else say that there is nothing to do. An answer that differed cannot be mended: then
the rows stay, and so does the mark. No raw batch is set aside: the data was right, one of its two ways was not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from plumbline import clock, observed
from plumbline.errors import GateFailed, PlumblineError
from plumbline.lake import live
from plumbline.pipeline import gates, leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import live_mark, online_store
from plumbline.state import releases
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from validation import live_parity
from validation import served_answers as answers
from validation.mismatch import Compared, Mismatch, told
from validation.point_in_time import Entity, Offline, Row, missing_as_none, same
from validation.served_answers import OnDemand, Replayed

GATE, STAGE = "parity", "parity_check"
KEPT = 1_000
"""Mismatches in the evidence file; the rest are counted."""
BATCH = 20_000
"""Entities whose rows are read from the lake at once."""


class ParityError(PlumblineError):
    """There is nothing online that could be checked."""


class Online(Protocol):
    """The online rows of one view, as feature_repo.online_rows.OnlineRows reads them."""

    names: list[str]
    ttl: timedelta
    defined_ttl: timedelta

    def entities(self) -> set[Entity]: ...
    def read(self, entities: list[Entity]) -> Iterator[tuple[Entity, datetime | None, dict[str, Any]]]: ...
    def remove(self, entities: set[Entity]) -> int: ...


@dataclass(frozen=True)
class Asked:
    """How much is looked at: all entities, or a seeded sample of `sample`; at most `answers` logged ones, from a real
    time `since` on instead of the last check that passed."""

    sample: int | None = None
    answers: int = 1_000
    seed: int = 1997
    since: datetime | None = None


def check(product: Product, opened: Callable[[str], Online], on_demand: OnDemand, asked: Asked) -> dict[str, Any]:
    """Compares online with offline for the release that is online, and replays answers; gives what was found.

    `opened` gives the online rows of a view, once it is known that Redis is there.
    Raises GateFailed naming features, entities, both values and the release; ParityError when no release is online;
    Conflict while a materialization is at work. Evidence is in `<home>/evidence/<run_id>/parity_check.json`.
    """
    with leases.lease(product, STAGE, "materialization"):
        held = online_store.online(online_store.client(), product)
        if held is None:
            raise ParityError(
                f"no release is whole in the online store: run `{product.command_of('materialize')}`, then check it"
            )
        release = releases.read(product.name, held[0])
        head = {"stage": STAGE, "run_id": release.run_id, "as_of": release.as_of, "release_id": release.release_id}
        facts: dict[str, Any] = {}
        entry = stage.recorded(
            product,
            head,
            lambda: _check(product, release, held[1], opened, on_demand, asked, facts),
            on_failure=lambda: facts,
        )
        return {"state": "done", "release_id": release.release_id, **entry}


def _check(
    product: Product,
    release: Release,
    until: datetime,
    opened: Callable[[str], Online],
    on_demand: OnDemand,
    asked: Asked,
    facts: dict[str, Any],
) -> dict[str, Any]:
    say(f"reading release {release.release_id} on both sides")
    observed.read(product.online, release.release_id)
    views = {view: opened(view) for view in product.views}
    streams = {view: opened(view) for view in live_parity.views(product)}
    rows = {view: _compare(product, release, until, view, online, asked) for view, online in views.items()}
    differ = sum(len(found.mismatches) for found in rows.values())
    if differ and asked.sample is not None:
        say(f"{differ:,} values of the sample differ: reading every row")
        rows = {view: _compare(product, release, until, view, online, Asked()) for view, online in views.items()}
    live = {view: live_parity.compare(product, view, online, release.release_id) for view, online in streams.items()}
    first = views[product.view]
    served = answers.replay(
        product,
        first.names,
        first.ttl,
        on_demand,
        streams,
        most=asked.answers,
        seed=asked.seed,
        since=asked.since,
    )
    both = [*rows.values(), *live.values()]
    mismatches = [*(found for view in both for found in view.mismatches), *served.mismatches]
    compared = sum(view.values for view in both) + served.compared
    failed = told(mismatches, product.entities)
    tables = [table for table in product.views.values() if table in release.tables]
    facts |= {
        "feature_parity_mismatch_ratio": len(mismatches) / compared if compared else 0.0,
        "mismatches": len(mismatches),
        "compared_values": compared,
        product.entities: max(view.entities for view in rows.values()),
        "expired": sum(view.expired for view in rows.values()),
        **{f"{view}_rows": found.entities for view, found in live.items()},
        "answers_logged": served.logged,
        "answers_replayed": served.rows,
        "answers_unreadable": served.unreadable,
        "predictions_version": served.version,
        "read": {table: release.version(table) for table in tables},
    }
    audit = gates.Audit(release.run_id, _head(release))
    evidence = {**asdict(asked), **facts, "first_mismatches": [found.as_dict() for found in mismatches[:KEPT]]}
    verdict = Verdict(GATE, not mismatches, compared, tuple(failed))
    report = gates.record_all(audit, [verdict], evidence, name=STAGE)[GATE].report
    facts |= audit.told()
    if mismatches:
        removed = _withdraw(product, {**views, **streams}, rows, live)
        raise GateFailed(_failure(product, release, len(mismatches), compared, failed, removed, served, report))
    return {**facts, "message": _message(product, release, rows, live, served)}


def _compare(product: Product, release: Release, until: datetime, view: str, online: Online, asked: Asked) -> Compared:
    """Every value of every entity, or of a sample and of whoever is on one side only; the ttl; the rows' end.

    A view whose table the release does not have must have no row online. Some thousand rows are in memory at a time.
    """
    end, table = clock.end_of(release.as_of), product.views[view]
    offline = None
    fresh, expired = set[Entity](), set[Entity]()
    if table in release.tables:
        offline = Offline(table, release.version(table), product.entity, online.defined_ttl, online.names)
        rows, everyone = offline.entities(end)
        fresh = set(live.keep(product, release, rows)[product.entity].to_pylist())
        expired = everyone - fresh if product.live is None else set()
    known, there = fresh | expired, online.entities()
    chosen = known
    if asked.sample is not None and asked.sample < len(known):
        chosen = set(random.Random(asked.seed).sample(sorted(known), asked.sample))  # noqa: S311
    compared = sorted(chosen | (there - known) | (fresh - there))
    found = Compared(len(compared), 2, len(expired.intersection(compared)))
    for name, ours, theirs in (("the view's ttl", online.ttl, online.defined_ttl), ("online until", until, end)):
        if ours != theirs:
            found.mismatches.append(Mismatch(None, name, ours, theirs, release.release_id))
    shown = {name: f"{view}.{name}" if product.more_views else name for name in ("event_time", *online.names)}
    batch, newest = frozenset[Entity](), dict[Entity, Row]()
    for at, (entity, stamp, values) in enumerate(online.read(compared)):
        if at % BATCH == 0:
            batch = frozenset(compared[at : at + BATCH])
            newest = offline.newest(end, batch & fresh) if offline else {}
        row = newest.get(entity)
        if row is None and entity in expired and (stamp is None or end - stamp > online.ttl):
            found.values += 1  # no row, or one that answers expired: the release has none that may be served
            continue
        found.values += 1 + len(online.names)
        found.mismatches += _differing(entity, stamp, values, row, shown, release.release_id)
    return found


def _differing(
    entity: Entity,
    stamp: datetime | None,
    values: dict[str, Any],
    row: Row | None,
    shown: dict[str, str],
    release_id: int,
) -> list[Mismatch]:
    """What differs between a row online and offline; `shown` has each value's name with that for messages."""
    online = {"event_time": stamp, **values}
    offline = {"event_time": row.event_time, **row.values} if row else {}
    pairs = [(told_as, missing_as_none(online.get(name)), offline.get(name)) for name, told_as in shown.items()]
    return [Mismatch(entity, name, ours, theirs, release_id) for name, ours, theirs in pairs if not same(ours, theirs)]


def _withdraw(
    product: Product, views: dict[str, Online], rows: dict[str, Compared], live: dict[str, Compared]
) -> int | None:
    """Takes what differs out of Redis, with the release's mark, or so that the stream mends it; how many rows, None
    when the online rows were all equal."""
    differing = {view: found.mismatches for view, found in [*rows.items(), *live.items()] if found.mismatches}
    if not differing:
        return None
    if differing.keys() & rows.keys():
        online_store.client().delete(product.online_mark)
    for view in differing.keys() & live.keys():
        live_mark.doubt(online_store.client(), product, view)
    return sum(
        views[view].remove({each.entity for each in found if each.entity is not None})
        for view, found in differing.items()
    )


def _failure(
    product: Product,
    release: Release,
    mismatches: int,
    compared: int,
    lines: list[str],
    removed: int | None,
    served: Replayed,
    report: str | None,
) -> str:
    tables = [table for table in product.views.values() if table in release.tables]
    pinned = ", ".join(f"{table}@v{release.version(table)}" for table in tables)
    where = f"release {release.release_id} ({pinned})"
    materialize, check = product.command_of("materialize"), product.command_of(STAGE)
    steps = []
    if removed is not None:
        steps.append(
            f"{removed:,} rows were taken out of Redis: predictors answer 503 for these {product.entities} and go on "
            "with the others. Mend what wrote them (a definition, or whoever else writes to this Redis), run "
            f"`{materialize}`, which writes every row again (a stream's rows come with its next micro-batch), then "
            f"`{check}`."
        )
    if served.mismatches:
        steps.append(
            "Answers were given that the point-in-time join does not give: mend what computes the feature, start the "
            "predictor again (`plumb down`, `plumb up`), and when you know whom they reached, run `"
            f"{check} --since TIME` with the time (UTC) of that start, which leaves out what was answered before."
        )
    return (
        f"{mismatches:,} of {compared:,} values differ between what is online and {where}:\n  "
        + "\n  ".join(lines)
        + f"\n  Evidence: {report}.\n  "
        + "\n  ".join(steps)
    )


def _message(
    product: Product,
    release: Release,
    rows: dict[str, Compared],
    live: dict[str, Compared],
    served: Replayed,
) -> str:
    lost = sum(view.expired for view in rows.values())
    expired = f" ({lost:,} of them expired)" if lost else ""
    entities = max(view.entities for view in rows.values())
    values = sum(view.values for view in [*rows.values(), *live.values()])
    expired += "".join(f", {found.entities:,} rows of {view}" for view, found in live.items())
    told_of = "no answers since the last check"
    if served.logged:
        told_of = f"{served.rows:,} of {served.logged:,} answers since the last check equal the point-in-time join"
    if served.unreadable:
        told_of += f", {served.unreadable:,} are of releases whose tables are gone"
    return (
        f"release {release.release_id} online is what it is offline: {entities:,} {product.entities}{expired}, "
        f"{values:,} values bit for bit; {told_of}"
    )


def _head(release: Release) -> dict[str, Any]:
    return {"run_id": release.run_id, "as_of": release.as_of, "release_id": release.release_id}
