"""What each predictor of a stack of containers serves: an object a side, and the models' files beside it.

`PLUMBLINE_MODELS` names the place. In it `<product>/stable.json` and `canary.json` say which version that side's
predictor serves, and `<product>/versions/<version>/` holds the files that were signed. Only a rollout writes there;
a predictor needs a key that reads it and no more.
"""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from plumbline import files
from plumbline.errors import SettingsError, Unreadable
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects

Side = Literal["stable", "canary"]
STABLE: Side = "stable"
CANARY: Side = "canary"
SIDES = (STABLE, CANARY)
PORT = 8080
"""Where each of them listens."""


@dataclass(frozen=True)
class Slot:
    """A version to serve, as a pod's annotations would say it; `files` are paths below the version's folder."""

    version: str
    run: str
    digest: str
    signature: str
    revision: str
    files: tuple[str, ...]


def addresses(product: Product, side: Side) -> list[str]:
    """host:port of each of that side's predictors: several where there are several containers, none while none runs."""
    try:
        found = socket.gethostbyname_ex(f"{product.name}-{side}")[2]
    except OSError:
        return []
    return [f"{address}:{PORT}" for address in sorted(found)]


def read(product: Product, side: Side) -> Slot | None:
    """What that side shall serve, None for nothing. Raises Unreadable for an object that does not say it."""
    found = _store().read(_key(product, side))
    if found is None:
        return None
    told = found.json()
    try:
        return Slot(**{**told, "files": tuple(told["files"])})
    except (KeyError, TypeError) as error:
        raise Unreadable(f"{found.where} does not say what to serve: {error}") from None


def write(product: Product, side: Side, slot: Slot | None) -> None:
    """Says what that side shall serve from now on; None for nothing."""
    if slot is None:
        _store().delete(_key(product, side))
    else:
        _store().replace(_key(product, side), files.dumps(asdict(slot)).encode(), None)


def put(product: Product, version: str, folder: Path) -> tuple[str, ...]:
    """Puts a version's files there; their paths. A file that is there already is overwritten by the same bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = tuple(str(path.relative_to(folder)) for path in found)
    for name, path in zip(names, found, strict=True):
        _store().replace(_of_version(product, version, name), path.read_bytes(), None)
    return names


def fetch(product: Product, slot: Slot, folder: Path) -> None:
    """Fetches the slot's files into an empty folder. Raises Unreadable when one is not there."""
    for name in slot.files:
        key = _of_version(product, slot.version, name)
        found = _store().read(key)
        path = folder / name
        if found is None or not path.resolve().is_relative_to(folder.resolve()):
            raise Unreadable(f"{_store().where(key)} is not there, which the rollout puts there first")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.content)


def _store() -> objects.Store:
    if settings().models is None:
        raise SettingsError("PLUMBLINE_MODELS is not set: expected s3://bucket, where predictors find models")
    return objects.store_at(settings().models or "")


def _key(product: Product, side: Side) -> str:
    return f"{product.name}/{side}.json"


def _of_version(product: Product, version: str, name: str) -> str:
    return f"{product.name}/versions/{version}/{name}"
