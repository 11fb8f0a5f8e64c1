"""Files that are whole or absent: written beside their place and renamed, or created once and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbline.errors import Conflict, Unreadable


def dumps(value: object) -> str:
    """JSON as every file of ours holds it: sorted keys, two spaces, a newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def write_whole(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replaces `path` by `content` in one step: a reader sees the old file or the new one, never a part."""
    temporary = _beside(path, content, mode)
    os.replace(temporary, path)


def create_once(path: Path, content: str | bytes) -> None:
    """Creates `path`, whole, if nobody has: the file system's put-if-absent. Raises FileExistsError otherwise."""
    temporary = _beside(path, content, 0o444)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _beside(path: Path, content: str | bytes, mode: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None when there is no such file. Raises Unreadable, a ValueError, when it holds none."""
    try:
        return json_object(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def json_object(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `content`. Raises Unreadable, which names `where` it was read, when it holds none."""
    try:
        value = json.loads(content)
    except ValueError as error:  # bytes that are no UTF-8 raise one too
        raise Unreadable(f"{where}: expected a JSON object, found no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


@contextmanager
def locked(path: Path, *, wait: bool, held: str = "") -> Iterator[None]:
    """Holds an advisory lock on `path`; the kernel lets go of it when the process ends, however it ends.

    With wait=False a lock in other hands raises Conflict, with `held` as what it means.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise Conflict(f"{held or path} (held by {file.read().strip() or 'an unnamed process'})") from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield


def sha256(*parts: bytes) -> str:
    """Hex digest of the parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
