"""What a run has so far, kept until it is published; and the raw batches that no run builds on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from plumbline import verdict
from plumbline.errors import Conflict, Unreadable
from plumbline.state import objects, releases
from plumbline.verdict import Verdict


@dataclass
class Candidate:
    """What a run has so far: table versions written, gate verdicts, and an entry for each stage that is done.

    `rejected` names the raw batches that this run leaves out, because a gate failed on them. `etag` is the version of
    the object that this one was read from or written as, None before the first.
    """

    run_id: str
    product: str
    as_of: date
    base: int | None
    tables: dict[str, int] = field(default_factory=dict)
    gates: dict[str, Verdict] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    etag: str | None = field(default=None, compare=False, repr=False)

    def save(self) -> None:
        """Writes the candidate whole, in one step, over the version that it was read from.

        Raises Conflict when another process wrote it meanwhile: one that took over the lease.
        """
        key = key_of(self.product, self.as_of)
        value = {name: content for name, content in asdict(self).items() if name != "etag"}
        value["gates"] = verdict.as_dicts(self.gates)
        try:
            if self.etag is None:
                self.etag = objects.create_json(key, value)
            else:
                self.etag = objects.replace_json(key, value, if_match=self.etag)
        except (objects.Exists, objects.Changed):
            raise Conflict(
                f"{objects.where(key)}: another process goes on with the run {self.run_id}; this one changed nothing "
                "there: run the same command again"
            ) from None


def load(product: str, as_of: date) -> Candidate | None:
    """The candidate of a day, None when there is none. Raises Unreadable when its object holds none."""
    found = objects.read(key_of(product, as_of))
    if found is None:
        return None
    content = found.json()
    try:
        gates = verdict.read(content["gates"], found.where)
        return Candidate(**{**content, "as_of": as_of, "gates": gates}, etag=found.etag)
    except (KeyError, TypeError) as error:
        raise Unreadable(f"{found.where}: expected what a run has so far, found another object: {error}") from None


def tables_named(product: str) -> dict[str, dict[str, int]]:
    """Day → the table versions that its candidate names."""
    keys = objects.keys(f"runs/{product}")
    return {_stem(key): (objects.read_json(key) or {}).get("tables") or {} for key in keys}


def rejected(product: str) -> list[str]:
    """The raw batches that a gate failed on, and those that only undone releases had.

    They stay in the raw tables and nothing is built from them.
    """
    release = releases.in_force(product)
    failed = (_stem(key) for key in objects.keys(f"rejected/{product}"))
    return sorted({*failed, *(release.rejected if release else ())})


def reject(product: str, batch_id: str, run_id: str, why: str) -> None:
    """Sets a raw batch aside, with the gate's words. What was said of it before stays."""
    told = {"batch_id": batch_id, "run_id": run_id, "why": why}
    with suppress(objects.Exists):  # killed between this and the candidate's own word of it
        objects.create_json(rejected_key(product, batch_id), told)


def rejected_key(product: str, batch_id: str) -> str:
    """The key of what was written down of a batch that a gate failed on."""
    return f"rejected/{product}/{batch_id}.json"


def key_of(product: str, as_of: date) -> str:
    """The key of a day's candidate."""
    return f"runs/{product}/{as_of}.json"


def _stem(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")
