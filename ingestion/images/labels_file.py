"""labels.csv: which label each picture of a folder, an archive or a bucket has, and who labels a picture anew."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from ingestion.images.sources import SourceError

NAME = "labels.csv"
MOST_BYTES = 256 * 2**20
LONGEST_LABEL = 200


class Labels:
    """The labels of one file, by the picture's path beside it. Raises SourceError that names file, row and column."""

    def __init__(self, content: bytes, where: str) -> None:
        self.where = where
        self._rows: dict[str, tuple[str, int]] = {}
        for row, (image, label) in rows(content, where, ("image", "label")):
            path = PurePosixPath(image)
            if path.is_absolute() or ".." in path.parts:
                raise SourceError(f"{where}, row {row}, column image: {image!r}: expected a path beside {NAME}")
            if (earlier := self._rows.setdefault(str(path), (label, row)))[1] != row:
                raise SourceError(
                    f"{where}, row {row}, column image: {image!r} stands in row {earlier[1]} too, labelled "
                    f"{earlier[0]!r}; here {label!r}. Leave one of them out"
                )

    def of(self, name: str) -> tuple[str | None, str]:
        """The label of a picture and where it stands; None for a picture without one."""
        label, row = self._rows.get(name, (None, 0))
        return label, f"{self.where}, row {row}" if row else f"{self.where}, which does not name {name}"

    def refuse_absent(self, present: Mapping[str, object] | set[str]) -> None:
        """Raises SourceError for a row whose picture is not there."""
        for name, (label, row) in self._rows.items():
            if name not in present:
                raise SourceError(
                    f"{self.where}, row {row}, column image: {name!r} (labelled {label!r}) is not there; there are "
                    f"{len(present):,} pictures. Nothing was landed: add the picture or leave out the row"
                )


def rows(content: bytes, where: str, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Row number (the header is 1) and the values of these columns, none of them empty. Raises SourceError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise SourceError(f"{where}, row {row}: expected UTF-8, found the byte {content[error.start]:#04x}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(
                f"{where}, row 1: expected the columns {', '.join(columns)}, in small letters, divided by commas; "
                f"found {reader.fieldnames or []}"
            )
        if twice := [name for name in columns if list(reader.fieldnames or ()).count(name) > 1]:
            raise SourceError(
                f"{where}: the column {twice[0]} stands there twice, in {reader.fieldnames}: leave one out"
            )
        for line in reader:
            if None in line:
                raise SourceError(
                    f"{where}, row {reader.line_num}: {len(line) - 1 + len(line[None])} values in "
                    f"{len(line) - 1} columns, too many by {line[None]}; a comma in a value needs quotes around it"
                )
            values = tuple((line[name] or "").strip() for name in columns)
            for name, value in zip(columns, values, strict=True):
                if not value:
                    raise SourceError(f"{where}, row {reader.line_num}, column {name}: empty; leave the row out")
            try:
                values = tuple(
                    label_of(value) if name == "label" else value for name, value in zip(columns, values, strict=True)
                )
            except ValueError as error:
                raise SourceError(f"{where}, row {reader.line_num}, column label: {error}") from None
            yield reader.line_num, values
    except csv.Error as error:
        raise SourceError(f"{where}, row {reader.line_num}: {error}") from None


def label_of(text: str) -> str:
    """A label as it counts: no spaces around it, and composed (NFC), so that the two spellings of an é are one class.

    Raises ValueError for one that is empty, too long, or no line of text.
    """
    label = unicodedata.normalize("NFC", text).strip()
    if not 0 < len(label) <= LONGEST_LABEL:
        raise ValueError(f"{label[:40]!r} has {len(label):,} characters; expected 1 to {LONGEST_LABEL}")
    if odd := next((one for one in label if unicodedata.category(one) in ("Cc", "Cs")), None):
        raise ValueError(f"{label[:40]!r} holds the character {odd!r}; expected a line of text")
    return label
