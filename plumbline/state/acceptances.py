"""What somebody accepted: findings of a distribution gate, or of a leakage gate, on one day that are odd, and real.

An acceptance is one immutable object, `accepted/<product>/<day>-<gate>.json`. It changes no data and no
threshold: the next run of that day is let through, and its release records who said so and why.
"""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import date

from plumbline import clock
from plumbline.errors import Conflict, PlumblineError
from plumbline.product import Product
from plumbline.state import objects, releases
from plumbline.verdict import Acceptance


class AcceptanceError(PlumblineError):
    """This cannot be accepted."""


def accept(product: Product, gate: str, as_of: date, why: str, by: str | None = None) -> Acceptance:
    """Records it.

    Raises AcceptanceError for a structural gate, no reason, or a day that no run will look at any more or yet, Conflict
    when it was done before.
    """
    known = {**product.acceptable, **product.acceptable_in_training}
    if gate not in known:
        raise AcceptanceError(
            f"{gate} cannot be accepted: only these can ({', '.join(known)}). What any other "
            "gate finds is wrong whatever the season: mend the data at its source, or the code, and start over with "
            f"`plumb ingest --as-of {as_of}`"
        )
    if clock.end_of(as_of) > clock.now():
        raise AcceptanceError(
            f"{gate} of {as_of}: that day is not over, the clock says {clock.now():%Y-%m-%d %H:%M} UTC: accept what a "
            "gate found of a day that has run"
        )
    release = releases.in_force(product.name)
    if gate in product.acceptable_in_training:
        if as_of not in {releases.read(product.name, number).as_of for number in releases.numbers(product.name)}:
            raise AcceptanceError(
                f"{gate} of {as_of}: no release covers up to that day, so it has no dataset: nothing was recorded"
            )
    elif release is not None and release.as_of >= as_of:
        raise AcceptanceError(
            f"{gate} of {as_of}: release {release.release_id} covers {release.as_of} already, so no run of that day "
            "would read this: nothing was recorded"
        )
    if not why.strip():
        raise AcceptanceError(f"{gate} of {as_of}: say why it is real (--why): the release will name the reason")
    made = Acceptance(gate, as_of.isoformat(), why.strip(), by or _user(), clock.wall().isoformat())
    try:
        objects.create_json(_key(product.name, gate, as_of), asdict(made))
    except objects.Exists:
        found = accepted(product.name, gate, as_of)
        told = f" by {found.by} at {found.at[:16]}: {found.why}" if found else ""
        raise Conflict(f"{gate} of {as_of} was accepted before{told}; nothing was changed") from None
    return made


def accepted(product: str, gate: str, as_of: date) -> Acceptance | None:
    """What was accepted for a gate and a day, None when nothing was."""
    found = objects.read_json(_key(product, gate, as_of))
    return Acceptance(**found) if found else None


def listed(product: str) -> list[Acceptance]:
    """All of them, by day and gate."""
    found = (objects.read_json(key) for key in objects.keys(f"accepted/{product}"))
    return [Acceptance(**item) for item in found if item]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user of that number
        raise AcceptanceError("this system does not say who you are: say it with --by NAME") from None


def _key(product: str, gate: str, as_of: date) -> str:
    return f"accepted/{product}/{as_of}-{gate}.json"
