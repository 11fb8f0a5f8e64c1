"""A stage run: one step of a product's daily run, between the release it is based on and the one it leads to.

Write, audit, publish. The first stage pins the release in force as the run's base and opens a *candidate*: an object
that gathers the table versions the stages wrote and the verdicts of the gates. Each stage reads what the candidate
(or else the base) names, by version. The last one publishes the candidate as a release.

The same `--as-of` again changes nothing: a stage that the candidate has as done by the same code is skipped, and a
day that a release covers is over. A stage that was killed left no entry, so it is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any

from plumbline import causes, clock, observed, provenance, verdict
from plumbline.contracts import contract
from plumbline.errors import Conflict, GateFailed, PlumblineError
from plumbline.lake import tables as lake
from plumbline.lineage import events
from plumbline.pipeline.leases import lease
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import candidates, ledger, releases
from plumbline.state.candidates import Candidate
from plumbline.state.leases import Lease, LeaseLost
from plumbline.state.releases import Release
from plumbline.verdict import Verdict


class StageError(PlumblineError):
    """A stage was asked for out of order, or for a day that is not over."""


@dataclass
class StageRun:
    """What a stage gets to work with: the day, the base, the pins; and where it reports what it did.

    `lease` is the one it runs under, None in a test of its work alone.
    """

    product: Product
    name: str
    as_of: date
    candidate: Candidate
    base: Release | None
    wrote: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    gates: dict[str, Verdict] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    lease: Lease | None = None

    def pin(self, table: str) -> int:
        """The version of a table that this run reads: the candidate's, else the base release's."""
        pinned = self.named.get(table, self.candidate.tables.get(table))
        if pinned is None and self.base is not None:
            pinned = self.base.tables.get(table)
        if pinned is None:
            raise StageError(f"{self.candidate.run_id}: neither this run nor its base release names {table}")
        self.read[table] = pinned
        return pinned

    def take(self, table: str, version: int) -> None:
        """From here on the run reads this version, and its release names it: of a table that a stream writes."""
        self.named[table] = version

    def raw(self, table: str) -> str:
        """A raw table at its pin, without the rejected batches, as a relation that Spark SQL reads."""
        return lake.at(table, self.pin(table), self.candidate.rejected)

    def released(self, *tables: str) -> dict[str, int]:
        """Of these tables, those that the base release names, with their versions."""
        return {t: self.base.tables[t] for t in tables if self.base and t in self.base.tables}

    def write(self, table: str, version: int, rows: int) -> None:
        """Reports a table this stage wrote: its new version, and how many rows the stage wrote (not the total)."""
        self.wrote[table] = version
        self.rows[table] = rows


@dataclass(frozen=True)
class Result:
    """What a stage says when it is over; `state` is `done` or `unchanged`."""

    stage: str
    as_of: date
    state: str
    seconds: float
    message: str
    rows: dict[str, int] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)


def perform(
    product: Product,
    name: str,
    as_of: date,
    work: Callable[..., str],
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Runs one stage under the product's lease, with its entry in candidate and ledger. `work` returns one sentence.

    `work` gets `options` (JSON values) by name, and a stage that was done with others is run again.

    Raises Conflict when another stage of the product runs or took over from this one while it was frozen, StageError
    out of order, and whatever `work` raises.
    """
    if clock.end_of(as_of) > clock.now():
        raise StageError(
            f"--as-of {as_of}: that day is not over, the clock says {clock.now():%Y-%m-%d %H:%M} UTC"
            + (" (PLUMBLINE_NOW)" if clock.is_replay() else "")
        )
    with lease(product, name) as held:
        release = releases.in_force(product.name)
        if release is not None and release.as_of >= as_of:
            return Result(name, as_of, "unchanged", 0.0, f"release {release.release_id} covers {release.as_of} already")
        candidate = _open(product, name, as_of, release)
        entry = candidate.stages.get(name)
        if entry is not None and "release_id" in entry:  # what it published would cover the day, were it there
            say(f"release {entry['release_id']}, which this run published, is gone: it is published again")
        elif entry and entry["code_sha"] == provenance.code_sha() and entry.get("options") == (options or None):
            return Result(name, as_of, "unchanged", 0.0, f"done before in this run: {entry['message']}", entry["rows"])
        _reset(product, candidate, name)
        facts = {"options": dict(options)} if options else {}
        run = StageRun(product, name, as_of, candidate, release, facts=facts, lease=held)
        return _work(run, partial(work, **options) if options else work)


def _work(run: StageRun, work: Callable[[StageRun], str]) -> Result:
    candidate = run.candidate

    def body() -> dict[str, Any]:
        try:
            run.facts["message"] = work(run)
        except GateFailed as failure:
            run.facts["sets_aside"] = failure.sets_aside
            raise
        named = {"named": run.named} if run.named else {}
        return {"read": run.read, "wrote": run.wrote, **named, "rows": run.rows, **judged(), **run.facts}

    def judged() -> dict[str, Any]:
        return {"gates": verdict.as_dicts(run.gates)}

    head = {"run_id": candidate.run_id, "stage": run.name, "as_of": run.as_of, "base": candidate.base}
    try:
        entry = recorded(run.product, head, body, on_failure=lambda: {**judged(), **run.facts})
    except GateFailed as failure:
        if failure.sets_aside:
            _reject(candidate, str(failure), run.lease, landed=run.facts.get("batch_id"))
        raise
    candidate.tables.update({**run.named, **run.wrote})
    candidate.gates.update(run.gates)
    candidate.stages[run.name] = entry
    _save(candidate, run.lease)
    return Result(run.name, run.as_of, "done", entry["seconds"], entry["message"], dict(run.rows), dict(run.wrote))


def recorded(
    product: Product,
    head: dict[str, Any],
    work: Callable[[], dict[str, Any]],
    on_failure: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Runs `work` between a START and a COMPLETE (or FAIL, or GATE_FAILED) event in the ledger.

    `head` names the stage and what it runs for; the dict that `work` returns goes into the ledger and comes back
    with `seconds` and `code_sha` added. The same goes out as lineage, with what was seen to be read and written.
    What a library raises comes out as an error of ours where its cause is known. LeaseLost leaves no end of its own:
    whoever took over the lease has recorded this run as killed.

    Raises UndeclaredRead when the stage opened what it does not declare.
    """
    begun = clock.monotonic()
    with observed.watching(product, head["stage"]) as watch:
        run = events.started(product, head, ledger.record(product.name, {**head, "state": "START"}), about=_about)
        try:
            watch.hold()
            entry = work()
            watch.hold()  # once more: what raised in the middle may have been caught
        except LeaseLost:
            raise
        except BaseException as error:
            state = "GATE_FAILED" if isinstance(error, GateFailed) else "FAIL"
            known = causes.explained(error)
            told = {
                "seconds": round(clock.monotonic() - begun, 2),
                "error": f"{type(known or error).__name__}: {known or error}",
                **on_failure(),
            }
            try:
                at = ledger.record(product.name, {**head, "state": state, **told})
            except (OSError, PlumblineError):  # a full disk, a store that is away: that must not hide the failure
                say(f"the ledger could not take down this failure of {head['stage']}")
                at = clock.wall().isoformat()
            events.ended(run, state, at, watch, told)
            if known:
                raise known from error
            raise
        entry = {**entry, "seconds": round(clock.monotonic() - begun, 2), "code_sha": provenance.code_sha()}
        at = ledger.record(product.name, {**head, **entry, "state": "COMPLETE"})
        events.ended(run, "COMPLETE", at, watch, entry)
        return entry


def _about(dataset: str) -> events.About | None:
    """What a dataset's contract says of it, for lineage; None for one without a contract that can be read."""
    try:
        found = contract.of_table(dataset)
    except contract.ContractError:
        return None
    return events.About(found.owner, found.purpose)


def _open(product: Product, name: str, as_of: date, release: Release | None) -> Candidate:
    first, *_ = product.daily_stages
    base = release.release_id if release else None
    found = candidates.load(product.name, as_of)
    if found is not None and found.base == base:
        candidate = found
    elif name == first:
        if found is not None:
            say(f"release {base} came in since this run began: starting over from it")
        candidate = Candidate(
            f"{product.name}-{as_of}",
            product.name,
            as_of,
            base,
            rejected=candidates.rejected(product.name),
            etag=found.etag if found else None,
        )
    else:
        raise StageError(
            f"no run for {as_of} on top of release {base}: start with `{product.command_of(first)} --as-of {as_of}`"
        )
    for earlier in product.daily_stages[: product.daily_stages.index(name)]:
        if earlier not in candidate.stages:
            raise StageError(
                f"{candidate.run_id}: {earlier} comes first: `{product.command_of(earlier)} --as-of {as_of}`"
            )
    return candidate


def _reject(candidate: Candidate, why: str, lease: Lease | None, landed: str | None) -> None:
    """Sets aside what the run landed and forgets the rest: after a failed gate it starts over, from the source.

    `landed` is the batch of a stage whose own gate failed behind its landing.
    """
    if lease is not None:
        lease.check()  # a batch that a newer holder goes on with is not set aside
    for batch in (*(entry.get("batch_id") for entry in candidate.stages.values()), landed):
        if batch:
            candidates.reject(candidate.product, batch, candidate.run_id, why)
    candidate.stages.clear()
    candidate.tables.clear()
    candidate.gates.clear()
    candidate.rejected = candidates.rejected(candidate.product)
    _save(candidate, lease)


def _reset(product: Product, candidate: Candidate, name: str) -> None:
    """Forgets this stage and all after it: what they wrote was built on what is now being made anew."""
    order = product.daily_stages
    for later in order[order.index(name) :]:
        entry = candidate.stages.pop(later, None)
        for table in (*(entry or {}).get("wrote", {}), *(entry or {}).get("named", {})):
            candidate.tables.pop(table, None)
        for gate in (entry or {}).get("gates", {}):
            candidate.gates.pop(gate, None)
    candidate.save()


def _save(candidate: Candidate, lease: Lease | None) -> None:
    """Saves the candidate. Raises LeaseLost when another process wrote it because it took over the lease."""
    try:
        candidate.save()
    except Conflict:
        if lease is not None:
            lease.check()
        raise
