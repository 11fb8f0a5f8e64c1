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
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from plumbline import clock, observed
from plumbline.errors import GateFailed, PlumblineError
from plumbline.pipeline import gates, leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import online_store
from plumbline.state import releases
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from validation import point_in_time
from validation import served_answers as answers
from validation.mismatch import Mismatch, told
from validation.point_in_time import TABLE, Row, same
from validation.served_answers import OnDemand, Replayed

GATE, STAGE = "parity", "parity_check"
KEPT = 1_000
"""Mismatches in the evidence file; the rest are counted."""


class ParityError(PlumblineError):
    """There is nothing online that could be checked."""


class Online(Protocol):
    """The online rows, as feature_repo.online_rows.OnlineRows reads them."""

    names: list[str]
    ttl: timedelta
    defined_ttl: timedelta

    def customers(self) -> set[int]: ...
    def read(self, customers: list[int]) -> Iterator[tuple[int, datetime | None, dict[str, Any]]]: ...
    def remove(self, customers: set[int]) -> int: ...


@dataclass(frozen=True)
class Asked:
    """How much is looked at: all customers, or a seeded sample of `sample`; at most `answers` logged ones, from a real
    time `since` on instead of the last check that passed."""

    sample: int | None = None
    answers: int = 1_000
    seed: int = 1997
    since: datetime | None = None


@dataclass
class Compared:
    """Of `customers` compared, `values` values; `expired` customers have no row that may be served, on either side."""

    customers: int = 0
    values: int = 0
    expired: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


def check(product: Product, opened: Callable[[], Online], on_demand: OnDemand, asked: Asked) -> dict[str, Any]:
    """Compares online with offline for the release that is online, and replays answers; gives what was found.

    `opened` gives the online rows, once it is known that Redis is there.
    Raises GateFailed naming features, customers, both values and the release; ParityError when no release is online;
    Conflict while a materialization is at work. Evidence is in `<home>/evidence/<run_id>/parity_check.json`.
    """
    with leases.lease(product, STAGE, "materialization"):
        held = online_store.online(online_store.client(), product)
        if held is None:
            raise ParityError("no release is whole in the online store: run `plumb materialize`, then check it")
        release = releases.read(product.name, held[0])
        head = {"stage": STAGE, "run_id": release.run_id, "as_of": release.as_of, "release_id": release.release_id}
        facts: dict[str, Any] = {}
        entry = stage.recorded(
            product,
            head,
            lambda: _check(product, release, held[1], opened(), on_demand, asked, facts),
            on_failure=lambda: facts,
        )
        return {"state": "done", "release_id": release.release_id, **entry}


def _check(
    product: Product,
    release: Release,
    until: datetime,
    online: Online,
    on_demand: OnDemand,
    asked: Asked,
    facts: dict[str, Any],
) -> dict[str, Any]:
    say(f"reading release {release.release_id} on both sides")
    observed.read(product.online, release.release_id)
    rows = _compare(release, until, online, asked)
    if rows.mismatches and asked.sample is not None:
        say(f"{len(rows.mismatches):,} values of the sample differ: reading every customer")
        rows = _compare(release, until, online, Asked())
    served = answers.replay(
        product, online.names, online.ttl, on_demand, most=asked.answers, seed=asked.seed, since=asked.since
    )
    mismatches = [*rows.mismatches, *served.mismatches]
    compared = rows.values + served.compared
    failed = told(mismatches)
    facts |= {
        "feature_parity_mismatch_ratio": len(mismatches) / compared if compared else 0.0,
        "mismatches": len(mismatches),
        "compared_values": compared,
        "customers": rows.customers,
        "expired": rows.expired,
        "answers_logged": served.logged,
        "answers_replayed": served.rows,
        "answers_unreadable": served.unreadable,
        "predictions_version": served.version,
        "read": {TABLE: release.version(TABLE)},
    }
    audit = gates.Audit(release.run_id, _head(release))
    evidence = {**asdict(asked), **facts, "first_mismatches": [asdict(found) for found in mismatches[:KEPT]]}
    verdict = Verdict(GATE, not mismatches, compared, tuple(failed))
    report = gates.record_all(audit, [verdict], evidence, name=STAGE)[GATE].report
    facts |= audit.told()
    if mismatches:
        removed = _withdraw(product, online, rows)
        raise GateFailed(_failure(release, len(mismatches), compared, failed, removed, served, report))
    return {**facts, "message": _message(release, rows, served)}


def _compare(release: Release, until: datetime, online: Online, asked: Asked) -> Compared:
    """Every value of every customer, or of a sample and of whoever is on one side only; the ttl; the rows' end."""
    end = clock.end_of(release.as_of)
    offline, expired = point_in_time.newest(release.version(TABLE), end, online.defined_ttl, online.names)
    known, there = offline.keys() | expired, online.customers()
    chosen = known
    if asked.sample is not None and asked.sample < len(known):
        chosen = set(random.Random(asked.seed).sample(sorted(known), asked.sample))  # noqa: S311 (no secret)
    everyone = sorted(chosen | (there - known) | (offline.keys() - there))
    found = Compared(len(everyone), 2, len(expired.intersection(everyone)))
    for name, ours, theirs in (("the view's ttl", online.ttl, online.defined_ttl), ("online until", until, end)):
        if ours != theirs:
            found.mismatches.append(Mismatch(None, name, ours, theirs, release.release_id))
    for customer, stamp, values in online.read(everyone):
        row = offline.get(customer)
        if row is None and customer in expired and (stamp is None or end - stamp > online.ttl):
            found.values += 1  # no row, or one that answers expired: the release has none that may be served
            continue
        found.values += 1 + len(online.names)
        found.mismatches += _differing(customer, stamp, values, row, online.names, release.release_id)
    return found


def _differing(
    customer: int,
    stamp: datetime | None,
    values: dict[str, Any],
    row: Row | None,
    names: list[str],
    release_id: int,
) -> list[Mismatch]:
    pairs = [("event_time", stamp, row.event_time if row else None)]
    pairs += [
        (name, point_in_time.missing_as_none(values.get(name)), row.values[name] if row else None) for name in names
    ]
    return [
        Mismatch(customer, name, ours, theirs, release_id) for name, ours, theirs in pairs if not same(ours, theirs)
    ]


def _withdraw(product: Product, online: Online, rows: Compared) -> int | None:
    """Takes what differs out of Redis, with the mark; how many rows, None when the online rows were all equal."""
    if not rows.mismatches:
        return None
    online_store.client().delete(product.online_mark)
    return online.remove({found.customer_id for found in rows.mismatches if found.customer_id is not None})


def _failure(
    release: Release,
    mismatches: int,
    compared: int,
    lines: list[str],
    removed: int | None,
    served: Replayed,
    report: str | None,
) -> str:
    where = f"release {release.release_id} ({TABLE}@v{release.version(TABLE)})"
    steps = []
    if removed is not None:
        steps.append(
            f"{removed:,} rows were taken out of Redis: predictors answer 503 for these customers and go on with the "
            "others. Mend what wrote them (a definition, or whoever else writes to this Redis), run "
            "`plumb materialize`, which writes every row again, then `plumb parity_check`."
        )
    if served.mismatches:
        steps.append(
            "Answers were given that the point-in-time join does not give: mend what computes the feature, start the "
            "predictor again (`plumb down`, `plumb up`), and when you know whom they reached, run `plumb parity_check "
            "--since TIME` with the time (UTC) of that start, which leaves out what was answered before."
        )
    return (
        f"{mismatches:,} of {compared:,} values differ between what is online and {where}:\n  "
        + "\n  ".join(lines)
        + f"\n  Evidence: {report}.\n  "
        + "\n  ".join(steps)
    )


def _message(release: Release, rows: Compared, served: Replayed) -> str:
    expired = f" ({rows.expired:,} of them expired)" if rows.expired else ""
    told_of = "no answers since the last check"
    if served.logged:
        told_of = f"{served.rows:,} of {served.logged:,} answers since the last check equal the point-in-time join"
    if served.unreadable:
        told_of += f", {served.unreadable:,} are of releases whose tables are gone"
    return (
        f"release {release.release_id} online is what it is offline: {rows.customers:,} customers{expired}, "
        f"{rows.values:,} values bit for bit; {told_of}"
    )


def _head(release: Release) -> dict[str, Any]:
    return {"run_id": release.run_id, "as_of": release.as_of, "release_id": release.release_id}
