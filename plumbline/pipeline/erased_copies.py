"""What else of the home holds a person's keys: datasets, quarantine, evidence, pages, leftovers of dbt and dlt, events.

What can be made again is deleted whole where it names one of the keys; as any number may be a key, some of it may name
somebody else. Rows in quarantine are taken out one by one, and in events of the ledger and of lineage the keys are
replaced by `erased`: those are records, and nothing makes them again.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.pipeline.erased_rows import Person, numbered
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects, trainings

PAGES = ("data_docs", "gx", "dbt", "report", "preview", "tmp", "drills")
"""Folders of the home that commands fill again."""

PACKAGES = {"load", "normalize", "extract"}
"""dlt's folders of rows on their way; its schemas and its state are beside them."""

RECORDS = ("ledger", "rejected", "accepted", "runs", "lineage")


def remove(product: Product, person: Person, *, go: bool) -> dict[str, int]:
    """Place → how many copies there held the person; with `go` they are gone afterwards, else nothing is changed."""
    counts: dict[str, int] = {}
    numbers = numbered(person.numbers)
    for key in [*objects.keys(f"training/{product.name}"), *objects.keys("quarantine"), *objects.keys("evidence")]:
        if place := _object(key, person, numbers, go):
            counts[place] = counts.get(place, 0) + 1
    for path in _files():
        if _mentions(path, person, numbers):
            place = path.relative_to(settings().home).parts[0]
            counts[place] = counts.get(place, 0) + 1
            if go:
                path.unlink(missing_ok=True)
    for key in [key for folder in RECORDS for key in objects.keys(folder)]:
        stored = objects.read(key)
        if stored and (text := _redacted(stored.content.decode(errors="replace"), person)) is not None:
            counts["records"] = counts.get("records", 0) + 1
            if go:
                objects.replace(key, text)
    lines = settings().home / "lineage.ndjson"
    if lines.exists() and (text := _redacted_lines(lines.read_text(errors="replace"), person)) is not None:
        counts["records"] = counts.get("records", 0) + 1
        if go:
            files.write_whole(lines, text)
    return counts


def datasets(product: Product, person: Person) -> list[str]:
    """The releases, as text, whose training dataset holds the person."""
    keys = [key for key in objects.keys(f"training/{product.name}") if key.endswith(f"/{trainings.ROWS}")]
    return [key.split("/")[-2] for key in keys if (stored := objects.read(key)) and _rows(stored.content, person)[0]]


def _object(key: str, person: Person, numbers: re.Pattern[str], go: bool) -> str | None:
    """The place of an object of the state that holds the person; gone, or rewritten, with `go`."""
    stored, place = objects.read(key), key.split("/")[0]
    if stored is None:
        return None
    if key.endswith(".parquet"):
        count, rest = _rows(stored.content, person)
        if not count:
            return None
        if go and place == "quarantine":
            objects.replace_bytes(key, rest)
        elif go:
            objects.delete(key)
        return place
    if place == "training":  # metrics and versions: no key, and the record of what was trained
        return None
    if place == "quarantine":
        text = _redacted(stored.content.decode(errors="replace"), person)
        if text is not None and go:
            objects.replace(key, text)
        return place if text is not None else None
    if not numbers.search(stored.content.decode(errors="replace")):
        return None
    if go:
        objects.delete(key)
    return place


def _rows(content: bytes, person: Person) -> tuple[int, bytes]:
    """How many rows of a parquet file are the person's, and the file without them. Raises nothing for what is none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(content))
        mask = person.mask(rows)
    except pa.ArrowInvalid:
        return 0, content
    count = 0 if mask is None else int(pc.sum(mask).as_py() or 0)
    if not count:
        return 0, content
    kept = io.BytesIO()
    pq.write_table(rows.filter(pc.invert(pc.fill_null(mask, False))), kept)
    return count, kept.getvalue()


def _files() -> Iterator[Path]:
    home = settings().home
    for folder in PAGES:
        yield from (path for path in sorted((home / folder).rglob("*")) if path.is_file() and not path.is_symlink())
    for path in sorted((home / "dlt").rglob("*")):
        if path.is_file() and PACKAGES & set(path.relative_to(home).parts):
            yield path


def _mentions(path: Path, person: Person, numbers: re.Pattern[str]) -> bool:
    content = b""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
    if path.suffix == ".parquet":
        return _rows(content, person)[0] > 0
    if path.suffix == ".gz":
        with suppress(OSError, EOFError):
            content = gzip.decompress(content)
    return numbers.search(content.decode(errors="replace")) is not None


def _redacted_lines(text: str, person: Person) -> str | None:
    """The same for JSON objects, one a line."""
    lines = [(line, _redacted(line, person)) for line in text.splitlines()]
    if all(clean is None for _, clean in lines):
        return None
    return "\n".join(line if clean is None else json.dumps(json.loads(clean)) for line, clean in lines) + "\n"


def _redacted(text: str, person: Person) -> str | None:
    """A JSON object in which no key of the person is left, None when none was there (or it is no JSON)."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    clean = _clean(value, None, person)
    return None if clean == value else files.dumps(clean)


def _clean(value: Any, name: str | None, person: Person) -> Any:
    if isinstance(value, dict):
        return {key: _clean(each, key, person) for key, each in value.items()}
    if isinstance(value, list):
        return [_clean(each, name, person) for each in value]
    of = person.numbers if name == "keys" else _by_column(person).get(name or "", frozenset())
    if not isinstance(value, bool) and str(value).isdecimal() and int(value) in of:
        return "erased"
    return _in_words(value, person) if isinstance(value, str) else value


def _in_words(text: str, person: Person) -> str:
    """Keys in a sentence: the numbers of a list that follows a column's name, or what it is of, as in `order 7`."""
    for column, keys in _by_column(person).items():
        if keys:
            lead = rf"\b{column.removesuffix('_id')}(?:_id|s)?\b[^\d\n]{{0,16}}\d+(?:, \d+)*"
            wanted = numbered(keys)
            for match in {found[0] for found in re.finditer(lead, text)}:
                text = text.replace(match, wanted.sub("erased", match))
    return text


def _by_column(person: Person) -> dict[str, frozenset[int]]:
    return {person.entity: frozenset({person.value}), **person.also}
