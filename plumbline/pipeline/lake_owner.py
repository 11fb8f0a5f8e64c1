"""A lake belongs to one state: only there is it known which versions are in force, and which nobody needs any more.

The state has an id, the object `state-id.json`. The lake holds the same object, below `_plumbline/`. Whoever writes
first lays it there. A home that was moved keeps both. Homes that share a state in a bucket share the lake too.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from plumbline import clock, files
from plumbline.errors import SettingsError, Unreadable
from plumbline.settings import settings
from plumbline.state import objects

KEY = "state-id.json"
IN_LAKE = f"_plumbline/{KEY}"


def require_own_lake() -> None:
    """Raises SettingsError when the lake belongs to another state than this home's; claims one that is nobody's."""
    own = objects.read_json(KEY) or _made()
    lake = objects.store_at(settings().lake_uri)
    held = lake.read(IN_LAKE)
    if held is None:
        with suppress(objects.Exists):
            lake.create(IN_LAKE, files.dumps(own).encode())
        held = lake.read(IN_LAKE)
    owner: dict[str, Any] = held.json() if held else own
    if not isinstance(owner.get("state"), str):
        raise Unreadable(f"{lake.where(IN_LAKE)}: expected the id of the state that the lake belongs to")
    if owner["state"] != own.get("state"):
        raise SettingsError(
            f"the lake {settings().lake_uri} belongs to another state ({owner.get('place')}, since "
            f"{str(owner.get('since'))[:10]}), so nothing was written. Name another lake in PLUMBLINE_LAKE, or that "
            "state in PLUMBLINE_HOME or PLUMBLINE_STATE"
        )


def share_with(home: Path) -> None:
    """Lets a scratch home work on this home's lake, as if it held the same state."""
    files.write_whole(home / KEY, files.dumps(objects.read_json(KEY) or _made()))


def _made() -> dict[str, Any]:
    place = settings().state or str(settings().home)
    made = {"state": secrets.token_hex(8), "place": place, "since": clock.wall().isoformat()}
    with suppress(objects.Exists):
        objects.create_json(KEY, made)
        return made
    return objects.read_json(KEY) or made
