"""Releases: numbered manifests that say which version of every table is in force.

A release is created once, under the next number (`releases/<product>/<number>.json`), and never changed: by
put-if-absent, so that of two runs that publish at once one wins and the other is told. Consumers read tables at a
release, never "latest". A manifest carries the SHA-256 of all else that it says: one that was altered is not read.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline import files, verdict
from plumbline.errors import Conflict, PlumblineError, Unreadable
from plumbline.state import objects
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from plumbline.state.leases import Lease

DIGEST = "digest"
NUMBERED = re.compile(r"[0-9]{6,}")


class ReleaseError(PlumblineError):
    """There is no such release, or nothing to publish."""


@dataclass(frozen=True)
class Release:
    """What is in force: `tables` maps a table's name to its Delta version, `gates` a gate's name to its verdict.

    `rejected` names the raw batches that nothing in it was built from, `accepted` the gates that would have failed,
    with who let them through and why. An undo publishes the tables of the release that it `restores` once more; it
    `undoes` all releases after that one, and says `why`.
    """

    release_id: int
    product: str
    as_of: date
    base: int | None
    tables: dict[str, int]
    gates: dict[str, Verdict]
    code_sha: str
    lock_hash: str
    run_id: str
    published_at: str
    rejected: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    undoes: list[int] = field(default_factory=list)
    restores: int | None = None
    why: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The manifest as its file holds it."""
        return asdict(self) | {"gates": verdict.as_dicts(self.gates)}

    def version(self, table: str) -> int:
        """The released version of a table. Raises ReleaseError when this release does not name it."""
        try:
            return self.tables[table]
        except KeyError:
            raise ReleaseError(
                f"release {self.release_id} of {self.product} does not name {table}; it names {sorted(self.tables)}"
            ) from None


def numbers(product: str) -> list[int]:
    """The numbers of all releases, in order. What else lies in their folder is passed over."""
    keys = set(objects.keys(f"releases/{product}"))
    stems = (name.rpartition("/")[2].removesuffix(".json") for name in keys)
    numbered = {int(stem) for stem in stems if NUMBERED.fullmatch(stem)}
    return sorted(number for number in numbered if key(product, number) in keys)


def in_force(product: str) -> Release | None:
    """The newest release, None before the first."""
    known = numbers(product)
    return read(product, known[-1]) if known else None


def required(product: str, number: int | None = None) -> Release:
    """The release of that number, or the one in force. Raises ReleaseError when there is none."""
    if number is not None:
        return read(product, number)
    release = in_force(product)
    if release is None:
        raise ReleaseError(
            f"no release of {product} yet: run its pipeline first (`make demo`, of images `make demo-images`)"
        )
    return release


def read(product: str, number: int) -> Release:
    """One release. Raises ReleaseError when it does not exist, Unreadable when its file holds none."""
    found = manifest(product, number)
    if found is None:
        raise ReleaseError(f"{product} has no release {number}; it has {numbers(product) or 'none'}")
    try:
        gates = verdict.read(found["gates"], "gates")
        return Release(**{**found, "as_of": date.fromisoformat(found["as_of"]), "gates": gates})
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(
            f"{objects.where(key(product, number))}: expected a release's manifest, found another object: {error}"
        ) from None


def manifest(product: str, number: int) -> dict[str, Any] | None:
    """A release as its file holds it, without the digest; None when there is none.

    Raises Unreadable when it is not what was published. Only releases from before digests may be without one.
    """
    found = objects.read_json(key(product, number))
    if found is None:
        return None
    digest = found.pop(DIGEST, None)
    if digest is None:
        before = objects.read_json(key(product, number - 1)) if number > 1 else None
        if before is not None and DIGEST in before:
            raise _altered(product, number, f"it has no {DIGEST}")
    elif digest != _digest(found):
        raise _altered(product, number, f"its {DIGEST} is another")
    elif (found.get("product"), found.get("release_id")) != (product, number):
        raise _altered(product, number, f"it is release {found.get('release_id')} of {found.get('product')}")
    return found


def _digest(content: dict[str, Any]) -> str:
    return f"sha256:{files.sha256(files.dumps(content).encode())}"


def _altered(product: str, number: int, what: str) -> Unreadable:
    return Unreadable(
        f"{objects.where(key(product, number))} was altered after it was published: {what}. Bring the file back from a "
        "backup; nothing is read from it"
    )


def key(product: str, number: int) -> str:
    """The key of a release's object."""
    return f"releases/{product}/{number:06d}.json"


def publish(release: Release, lease: Lease | None = None) -> None:
    """Puts a release in force, if its base still is. Raises Conflict when another one came in between.

    `lease` is the run's: LeaseLost, a Conflict, is raised when its holder was frozen or cut off and does not hold it
    any more. Without one, only the base is checked: for releases that no run makes.
    """
    known = numbers(release.product)
    current = known[-1] if known else None
    if lease is not None:
        lease.check()  # as late as can be; and before the base, which a successor moves
    if current != release.base:
        raise Conflict(_superseded(release, current))
    content = release.as_dict() | {"as_of": release.as_of.isoformat()}
    try:
        objects.create_json(key(release.product, release.release_id), content | {DIGEST: _digest(content)})
    except objects.Exists:
        raise Conflict(_superseded(release, release.release_id)) from None


def diff(before: Release, after: Release) -> dict[str, list[Any]]:
    """Field → its value in each, where they differ; tables and gates by their names, None where one is not named."""
    found: dict[str, list[Any]] = {}
    for name, then, now in ((one.name, getattr(before, one.name), getattr(after, one.name)) for one in fields(before)):
        if isinstance(then, dict):
            for each in sorted({*then, *now}):
                pair = [
                    side[each].verdict if name == "gates" and each in side else side.get(each) for side in (then, now)
                ]
                if pair[0] != pair[1]:
                    found[f"{name}.{each}"] = pair
        elif then != now:
            found[name] = [then, now]
    return found


def _superseded(release: Release, current: int | None) -> str:
    return (
        f"{release.product}: release {current} was published since this run pinned release {release.base}; "
        "nothing was changed. Run again from `plumb ingest`."
    )
