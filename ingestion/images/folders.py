"""Pictures in a folder or in a bucket, with a labels.csv beside them. Every other file there counts as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ingestion.images.labels_file import MOST_BYTES, NAME, Labels
from ingestion.images.sources import Item, SourceError
from plumbline.state import objects

LARGEST_BYTES = 256 * 2**20
"""A file above that is no picture: it is held whole in memory while it lands."""


def in_folder(folder: Path) -> Iterator[Item]:
    """The pictures of a folder and those below it, by name. Files that begin with a dot are left out."""
    labels = Labels(_bytes(folder / NAME, MOST_BYTES), str(folder / NAME))
    names = sorted(name for name in _below(folder, "") if name != NAME)
    labels.refuse_absent(set(names))
    for name in names:
        label, where = labels.of(name)
        yield Item(name, label, _bytes(folder / name, LARGEST_BYTES), where)


def _below(folder: Path, inside: str) -> Iterator[str]:
    for entry in os.scandir(folder / inside):
        name = f"{inside}{entry.name}"
        if entry.name.startswith("."):
            continue
        refuse_unreadable_name(str(folder), name)
        if entry.is_symlink():
            raise SourceError(f"{folder / name} is a symbolic link: it may lead anywhere; put the file itself there")
        if entry.is_dir():
            yield from _below(folder, f"{name}/")
        elif entry.is_file():
            yield name
        else:
            raise SourceError(f"{folder / name} is no plain file: expected pictures and {NAME}")


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise SourceError(
            f"{path} is not there: expected a file of the columns image,label (its header alone, without labels)"
        ) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    refuse_large(str(path), len(content), most)
    return content


def refuse_large(where: str, size: int, most: int = LARGEST_BYTES) -> None:
    """Raises SourceError for a file above the limit."""
    if size > most:
        raise SourceError(
            f"{where} has more than {most:,} bytes, too many for a picture. Nothing was landed: take it out"
        )


def refuse_unreadable_name(where: str, name: str) -> None:
    """Raises SourceError for a name that is no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{where} holds a file whose name is no UTF-8: {os.fsencode(name)!r}. Rename it") from None


def in_bucket(url: str) -> Iterator[Item]:
    """The pictures below s3://bucket/prefix, by key; server and credentials as for every other bucket."""
    store = objects.store_at(url)
    names = sorted(key for key in store.keys("", None) if not key.endswith("/"))
    if NAME not in names:
        raise SourceError(f"{store.where(NAME)} is not there: expected a file of the columns image,label")
    names.remove(NAME)
    labels = Labels(_object(store, NAME), store.where(NAME))
    labels.refuse_absent(set(names))
    for name in names:
        label, where = labels.of(name)
        yield Item(name, label, _object(store, name), where)


def _object(store: objects.Store, key: str) -> bytes:
    there = store.read(key)
    if there is None:
        raise SourceError(f"{store.where(key)} went away while the source was read: run the same again")
    refuse_large(store.where(key), len(there.content))
    return there.content
