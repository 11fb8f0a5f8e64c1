"""The one door to state: small objects under keys, in files below the home or in an S3-compatible bucket.

A key is a relative path such as `releases/churn/000007.json`, the same in both places. `PLUMBLINE_STATE` chooses the
place. An object is written whole or not at all. `create` never overwrites, and of many writers at once one wins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from plumbline import files
from plumbline.errors import Conflict, PlumblineError, Unreadable
from plumbline.settings import settings


class StateError(PlumblineError):
    """The store answers and refuses: no such bucket, credentials that it does not take, a request it cannot serve."""


class Exists(PlumblineError, FileExistsError):
    """`create` found an object under that key."""


class Changed(Conflict):
    """`replace` found another object than the caller had read, or none."""


@dataclass(frozen=True)
class Object:
    """An object as it was read.

    `where` is its path or URL for messages, `etag` names this version of its content, `written_at` is UTC.
    """

    where: str
    content: bytes
    etag: str
    written_at: datetime

    @property
    def text(self) -> str:
        """The content as text. Raises Unreadable when it is no UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(f"{self.where}: expected UTF-8: {error}") from None

    def json(self) -> dict[str, Any]:
        """The JSON object that it holds. Raises Unreadable, a ValueError, when it holds none."""
        return files.json_object(self.content, self.where)


class Store(Protocol):
    """What a place for objects must do. The functions of this module say what each method promises."""

    def where(self, key: str) -> str: ...
    def read(self, key: str) -> Object | None: ...
    def create(self, key: str, content: bytes) -> str: ...
    def replace(self, key: str, content: bytes, if_match: str | None) -> str: ...
    def delete(self, key: str) -> None: ...
    def keys(self, prefix: str, after: str | None) -> list[str]: ...
    def changed_at(self, prefix: str) -> int | None: ...


def where(key: str) -> str:
    """The object's path or URL, for messages."""
    return _store().where(_checked(key))


def read(key: str) -> Object | None:
    """The object under that key, None when there is none."""
    return _store().read(_checked(key))


def create(key: str, text: str) -> str:
    """Creates the object if there is none and returns its etag. Raises Exists, a FileExistsError, otherwise.

    An answer that gets lost is asked for again: the object counts as created when it holds exactly `text`.
    """
    return create_bytes(key, text.encode())


def create_bytes(key: str, content: bytes) -> str:
    """`create` for content that is no text."""
    return _store().create(_checked(key), content)


def replace(key: str, text: str, if_match: str | None = None) -> str:
    """Writes the object and returns its new etag.

    With `if_match`, the etag that the caller read, it raises Changed when the object is another one by now, or gone.
    Without it the object is overwritten or created: only for one writer at a time, such as the holder of a lease.
    A key is written one way or the other, never both: on files only those that compare wait for each other.
    """
    return replace_bytes(key, text.encode(), if_match)


def replace_bytes(key: str, content: bytes, if_match: str | None = None) -> str:
    """`replace` for content that is no text."""
    return _store().replace(_checked(key), content, if_match)


def delete(key: str) -> None:
    """Removes the object; none under that key is what was wanted. Only for requests and marks, never for a record."""
    _store().delete(_checked(key))


def keys(prefix: str, after: str | None = None) -> list[str]:
    """All keys in the folder `prefix` and below it, in order; with `after`, only those that follow that key.

    With `after`, a bucket sends only the keys that follow. In order means by Unicode code point, as S3 sorts.
    """
    listed = _store().keys(_checked(prefix.rstrip("/")), after)
    return sorted(key for key in listed if after is None or key > after)


def changed_at(prefix: str) -> int | None:
    """When an object in the folder `prefix` was last created or removed, in ns since 1970: on files, which tell it for
    one look at the folder. None in a bucket, which does not know, and for a folder that is not there."""
    return _store().changed_at(_checked(prefix))


def read_json(key: str) -> dict[str, Any] | None:
    """The JSON object under that key, None when there is none. Raises Unreadable, a ValueError, for anything else."""
    found = read(key)
    return found.json() if found else None


def create_json(key: str, value: object) -> str:
    """`create` with the value as JSON."""
    return create(key, files.dumps(value))


def replace_json(key: str, value: object, if_match: str | None = None) -> str:
    """`replace` with the value as JSON."""
    return replace(key, files.dumps(value), if_match)


def on_files() -> bool:
    """True when state is files below the home, False when it is in a bucket."""
    return settings().state is None


def exists_message(where: str) -> str:
    """What Exists says."""
    return f"{where} exists already; an object that is created once never changes"


def changed_message(where: str) -> str:
    """What Changed says."""
    return f"{where} was changed by another process since it was read; nothing was written"


class Files:
    """Objects as files below a folder; `create` leaves them read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def where(self, key: str) -> str:
        return str(self.folder / key)

    def read(self, key: str) -> Object | None:
        try:
            with (self.folder / key).open("rb") as file:
                written = os.fstat(file.fileno()).st_mtime
                content = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return Object(self.where(key), content, files.sha256(content), datetime.fromtimestamp(written, UTC))

    def create(self, key: str, content: bytes) -> str:
        try:
            files.create_once(self.folder / key, content)
        except FileExistsError:
            raise Exists(exists_message(self.where(key))) from None
        return files.sha256(content)

    def replace(self, key: str, content: bytes, if_match: str | None) -> str:
        path = self.folder / key
        if if_match is None:
            files.write_whole(path, content)
        else:
            # A file system has no conditional rename: of those that compare first, this lock lets one in at a time.
            with files.locked(path.with_name(f".{path.name}.lock"), wait=True):
                current = self.read(key)
                if current is None or current.etag != if_match:
                    raise Changed(changed_message(self.where(key)))
                files.write_whole(path, content)
        return files.sha256(content)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            (self.folder / key).unlink()

    def changed_at(self, prefix: str) -> int | None:
        try:
            return (self.folder / prefix).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def keys(self, prefix: str, after: str | None) -> list[str]:
        return list(self._below(prefix))

    def _below(self, folder: str) -> Iterator[str]:
        try:
            entries = list(os.scandir(self.folder / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):  # a file that is being written, or a lock
                continue
            if entry.is_dir():
                yield from self._below(f"{folder}/{entry.name}")
            else:
                yield f"{folder}/{entry.name}"


def store_at(place: str) -> Store:
    """The door to another place: a folder, also as file://…, or s3://bucket/prefix."""
    return _opened(place) if place.startswith("s3://") else Files(Path(place.removeprefix("file://")))


def read_at(url: str) -> Object | None:
    """The object at a full path or URL, wherever it is, None when there is none."""
    place, _, key = url.rpartition("/")
    return store_at(place).read(key)


def _store() -> Store:
    state = settings().state
    return _opened(state) if state else Files(settings().home)


def _opened(url: str) -> Store:
    return _bucket(url, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@cache
def _bucket(url: str, environment: tuple[tuple[str, str], ...]) -> Store:
    """The bucket's client keeps its connections, for as long as the environment names the same server and keys."""
    from plumbline.state.s3 import Bucket

    return Bucket(url, dict(environment))


def _checked(key: str) -> str:
    parts = key.split("/")
    if any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"bad key {key!r}: expected names that do not begin with a dot, divided by single slashes")
    return key
