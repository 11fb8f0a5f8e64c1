"""Putting pictures into a bucket, each under a key that its own bytes give."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.pictures import formats
from plumbline.state import objects
from plumbline.state.objects import Store

WRITERS = 8
"""Objects that are written at once: a bucket answers each in milliseconds."""

OBJECTS_AT_ONCE, BYTES_AT_ONCE = 256, 64 * 2**20


class BucketError(PlumblineError):
    """An object of a bucket is not there, or is not what it was written as."""


def raw_key(image: str, kind: str) -> str:
    """Where the raw bytes lie: below the first two digits, with the ending of their format."""
    return f"{image[:2]}/{image}{formats.EXTENSIONS.get(kind, ('',))[0]}"


def put_once(store: Store, key: str, content: bytes) -> bool:
    """Creates the object; False when it is there with the same bytes. Raises BucketError when it holds others."""
    try:
        store.create(key, content)
    except objects.Exists:
        there = read(store, key)
        if there != content:
            raise BucketError(
                f"{store.where(key)} holds other bytes ({files.sha256(there)[:12]}…) than those to be written "
                f"({files.sha256(content)[:12]}…): objects never change, so something else wrote there. Nothing was "
                "overwritten; look who writes to this bucket, and move that object away"
            ) from None
        return False
    return True


def read(store: Store, key: str) -> bytes:
    """The object's bytes. Raises BucketError when it is gone."""
    found = store.read(key)
    if found is None:
        raise BucketError(f"{store.where(key)} is gone: a table names it, and nothing of ours deletes it")
    return found.content


def put_all(store: Store, pairs: Iterator[tuple[str, bytes]]) -> None:
    """Creates objects, several at a time; no more of them are in memory than the two limits allow."""
    with ThreadPoolExecutor(WRITERS) as writers:
        for some in _chunks(pairs):
            for written in [writers.submit(put_once, store, key, content) for key, content in some]:
                written.result()


def _chunks(pairs: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    some, size = list[tuple[str, bytes]](), 0
    for pair in pairs:
        some.append(pair)
        size += len(pair[1])
        if len(some) == OBJECTS_AT_ONCE or size > BYTES_AT_ONCE:
            yield some
            some, size = [], 0
    yield some
