"""Erasure: a person goes out of everything that the platform holds, and a release without them comes into force.

The steps are in such an order that whatever is killed, the same command again ends right: versions without the person,
their release, the word of what cannot be read any more, copies, the online row, and the files with the rows at last.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from plumbline import clock, files, observed
from plumbline.lake import tables as lake
from plumbline.pipeline import erased_copies, erased_rows, leases, retention, stage, undo
from plumbline.pipeline.erased_rows import EraseError, Person, Rows
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import candidates, erasures, releases
from plumbline.state.leases import Lease
from plumbline.state.releases import Release

STAGE = "erase"
RUN = "-erase-"
"""Part of the run id of a release that an erasure published."""


@dataclass(frozen=True)
class Erased:
    """Place → rows (of a table, in all its versions) or copies (elsewhere) that hold the person, or held them; what
    cannot be reproduced without them, by name; the release that came into force, None when none was needed."""

    rows: dict[str, int]
    copies: dict[str, int]
    lost: list[str]
    release: int | None = None
    online: int = 0
    places: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", len(self.rows) + len(self.copies) + bool(self.online))


def look(product: Product, customer: int, shown: Callable[[Person], None], online: Callable[[], int]) -> Erased:
    """What holds the customer; nothing is changed. `shown` refuses while the shop shows them, `online` counts rows."""
    rows = erased_rows.find(product, customer)
    shown(rows.person)
    copies = erased_copies.remove(product, rows.person, go=False)
    return Erased(_counts(rows), copies, _lost(product, rows), online=online())


def erase(
    product: Product,
    customer: int,
    why: str,
    shown: Callable[[Person], None],
    forget: Callable[[Release], int],
) -> Erased:
    """Erases the customer. `forget` takes the online row away and says that the release in force is online.

    Raises EraseError without a reason or where it names the customer, Conflict while a run, a training, a
    materialization or the product's stream is at work, and what `shown` raises while the shop still shows the customer.
    """
    if not why.strip() or erased_rows.numbered([customer]).search(why):
        raise EraseError("say why (--why), without the customer's number: the ledger keeps the reason")
    with ExitStack() as stack:
        lease = stack.enter_context(leases.lease(product, STAGE))
        for kind in ("training", "materialization", "events"):
            stack.enter_context(leases.lease(product, STAGE, kind))
        current = releases.required(product.name)
        rows = erased_rows.find(product, customer)
        shown(rows.person)
        done: list[Erased] = []

        def work() -> dict[str, Any]:
            done.append(_erase(product, current, rows, why.strip(), lease, forget))
            one = done[0]
            told = {"rows": one.rows, "copies": one.copies, "online": one.online, "not_reproducible": one.lost}
            published = {"release_id": one.release} if one.release else {}
            return {"message": f"a customer was erased from {one.places} places", **published, **told}

        number = current.release_id + 1
        head = {"run_id": f"{product.name}{RUN}{number}", "stage": STAGE, "as_of": current.as_of}
        stage.recorded(
            product, {**head, "base": current.release_id, "who": _digest(customer), "why": why.strip()}, work
        )
        return done[0]


def _erase(
    product: Product, current: Release, rows: Rows, why: str, lease: Lease, forget: Callable[[Release], int]
) -> Erased:
    if rows.files:
        services.stop("spark")  # it keeps logs in memory, with the files that go now
    lost, today = _lost(product, rows), clock.wall().date().isoformat()
    tables: dict[str, int] = {}
    for table in rows.tables:
        say(f"{table}: a version without the customer")
        version = erased_rows.leave_out(product, rows, table, current.tables.get(table))
        if version is not None:
            erasures.record(table, made_from={version: current.tables[table]})
            tables[table] = version
    if tables:
        _publish(product, current, tables, why, lease)
    for table in rows.tables:
        erasures.record(table, unreadable=dict.fromkeys(erased_rows.lost_versions(table, rows.files[table]), today))
    copies = erased_copies.remove(product, rows.person, go=True)
    online = forget(releases.required(product.name))
    for table in rows.tables:
        erased_rows.remove_files(rows, table)
    return Erased(_counts(rows), copies, lost, current.release_id + 1 if tables else None, online)


def _publish(product: Product, current: Release, tables: dict[str, int], why: str, lease: Lease) -> None:
    """The release in force, with these versions, under the next number. Batches that only unpublished runs landed are
    rejected, as after an undo: their days land anew."""
    made = replace(
        current,
        release_id=current.release_id + 1,
        base=current.release_id,
        tables={**current.tables, **tables},
        run_id=f"{product.name}{RUN}{current.release_id + 1}",
        published_at=clock.now().isoformat(),
        undoes=[],
        restores=None,
        why=f"a customer was erased: {why}",
    )
    built_from = undo.batches(product, current.tables) - set(current.rejected)
    landed = undo.batches(product, {t: v for t in product.raw if (v := lake.version(t)) is not None})
    rejected = sorted((landed | set(candidates.rejected(product.name))) - built_from)
    releases.publish(replace(made, rejected=rejected), lease)
    observed.wrote(product.releases, made.release_id)


def _lost(product: Product, rows: Rows) -> list[str]:
    """Who names a version that goes: releases, datasets, models; and the datasets that hold the person themselves."""
    named = retention.named(product)
    lost = {
        who
        for table, files_of in rows.files.items()
        for version in erased_rows.lost_versions(table, files_of)
        for who in named.get(table, {}).get(version, [])
        if not who.startswith("run ")
    }
    lost |= {f"dataset of release {number}" for number in erased_copies.datasets(product, rows.person)}
    return sorted(lost, key=lambda who: (who.rstrip("0123456789-leaky"), len(who), who))


def _counts(rows: Rows) -> dict[str, int]:
    return {table: sum(of.values()) for table, of in sorted(rows.files.items())}


def _digest(customer: int) -> str:
    """What says in the ledger who was erased: only whoever has this home's key and asks for one number can tell."""
    path = settings().home / "keys" / "erase.key"
    with suppress(FileExistsError):
        files.create_once(path, secrets.token_hex(32))
        path.chmod(0o600)
    return f"hmac-sha256:{hmac.new(path.read_bytes(), str(customer).encode(), 'sha256').hexdigest()}"
