"""Where pictures come from. A source yields one picture at a time, so that memory stays flat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plumbline.errors import PlumblineError

EXPECTED = (
    "expected mnist or emoji (mnist:500 for the first 500), or a folder, a zip, a tar(.gz) or s3://bucket/prefix that "
    "holds pictures and labels.csv"
)


class SourceError(PlumblineError):
    """A source that is not there, is not what it says, or contradicts itself. Nothing of it landed."""


@dataclass(frozen=True)
class Item:
    """One picture as its source has it. `where` names the row of its label, for messages."""

    name: str
    label: str | None
    content: bytes
    where: str


def opened(source: str) -> Iterator[Item]:
    """The pictures of a source, in its own order. Raises SourceError, also later, while they are taken."""
    from ingestion.images import archives, folders, packaged

    if packaged_set := re.fullmatch(rf"({'|'.join(packaged.SOURCES)})(?::([1-9][0-9]*))?", source):
        name, first = packaged_set.groups()
        return packaged.SOURCES[name](int(first) if first else None)
    if source.startswith("s3://"):
        return folders.in_bucket(source)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return folders.in_folder(path)
    if path.is_file():
        return archives.in_archive(path)
    raise SourceError(f"source {source!r}: {EXPECTED}")
