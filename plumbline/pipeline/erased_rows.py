"""A person's rows in the lake: the data files that hold them, a version of each table without them, and the files gone.

A table's log is never cut, so which versions name a file is read from it. What the log itself says of such a file, the
smallest and largest key of its statistics, is dropped; checkpoints, which repeat the log, are deleted.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from plumbline.contracts import contract as contracts
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

LOG = "_delta_log"
MESSAGE = ("key", "value")
"""The columns, both binary, of a table of messages as a broker gave them."""
PLACE = ("topic", "partition", "offset")
"""The columns that name a message."""
COMMIT = re.compile(r"(\d{20})\.json")


class EraseError(PlumblineError):
    """The person cannot be erased now; nothing, or not all, was done."""


@dataclass(frozen=True)
class Person:
    """Whose rows: those with `value` in the column `entity`; in a table without it, those with one of the keys in
    `also` (column → keys), such as the order of a return. A message is theirs when one of their keys stands in it: as
    any number may be a key, it may be of somebody else."""

    entity: str
    value: int
    also: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def mask(self, rows: pa.Table) -> pa.ChunkedArray | None:
        """For each row whether it is the person's; None for rows that name nobody. Keys are compared as text."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for column, keys in {self.entity: frozenset({self.value}), **self.also}.items():
            if column in rows.column_names:
                wanted = pa.array(sorted(map(str, keys)), pa.string())
                return pc.is_in(rows[column].cast(pa.string()), value_set=wanted)
        if not {*MESSAGE} <= {*rows.column_names}:
            return None
        named = numbered(self.numbers)
        texts = zip(*(rows[column].to_pylist() for column in MESSAGE), strict=True)
        found = [any(named.search((each or b"").decode(errors="replace")) for each in pair) for pair in texts]
        return pa.chunked_array([pa.array(found, pa.bool_())])

    def predicate(self, table: DeltaTable) -> str:
        """The same as SQL, for a table as it is."""
        columns = {one.name for one in table.schema().fields}
        if {*MESSAGE, *PLACE} <= columns and self.entity not in columns:
            rows = table.to_pyarrow_table(columns=[*PLACE, *MESSAGE])
            found = rows.filter(self.mask(rows)).select(PLACE).to_pylist()
            return " OR ".join(map(_place, found)) or "false"
        if self.entity in columns:
            return f"{self.entity} = {self.value}"
        column, keys = next((column, keys) for column, keys in self.also.items() if column in columns)
        return f"{column} IN ({', '.join(map(str, sorted(keys)))})"

    @property
    def numbers(self) -> frozenset[int]:
        """The person's own key, and those of what is theirs."""
        return frozenset({self.value}).union(*self.also.values())


def _place(message: Mapping[str, Any]) -> str:
    return f"(topic = '{message['topic']}' AND partition = {message['partition']} AND `offset` = {message['offset']})"


@dataclass(frozen=True)
class Rows:
    """Where a person's rows are: table → data file (a key below the lake) → how many rows of any version it holds."""

    person: Person
    files: dict[str, dict[str, int]]

    @property
    def tables(self) -> list[str]:
        """Tables that only name what is theirs come first: once the others are done, nothing says what is theirs."""
        return sorted(self.files, key=lambda table: (self.person.entity in _columns(table), table))


def find(product: Product, customer: int) -> Rows:
    """Reads the keys in every data file of the lake, those of old versions and of killed runs too."""
    import pyarrow as pa

    person, read = Person(product.entity, customer, dict.fromkeys(_also(product), frozenset())), {}
    also: dict[str, set[int]] = {column: set() for column in person.also}
    for table, key in _data_files():
        rows = _keys_in(key, (person.entity, *person.also), MESSAGE)
        if rows is None:
            continue
        if person.entity in rows.column_names:
            rows = rows.filter(person.mask(rows))
            for column in also.keys() & set(rows.column_names):
                also[column].update(rows[column].drop_null().to_pylist())
        read[table, key] = rows
    person = Person(product.entity, customer, {column: frozenset(keys) for column, keys in also.items()})
    files: dict[str, dict[str, int]] = {}
    for (table, key), rows in read.items():
        mask = person.mask(rows)
        count = 0 if mask is None or not len(rows) else int(pa.compute.sum(mask).as_py() or 0)
        if count:
            files.setdefault(table, {})[key] = count
    return Rows(person, files)


def leave_out(product: Product, rows: Rows, table: str, pinned: int | None) -> int | None:
    """Commits a version of the table without the person; the version that a release has to name now, None for the same.

    Raw tables go on from their head, which holds every batch, and so do those that a stream appends to. Of another one
    that a release names, the head is brought back to the released version first, as each stage would do.
    """
    from deltalake.exceptions import CommitFailedError

    held = {_name(key) for key in rows.files[table]}
    names_them = pinned is not None and bool(held & _live(table, pinned))
    try:
        goes_on = table in (*product.raw, *product.appended)
        if pinned is not None and not goes_on and lake.content_version(table) != pinned:
            lake.opened(table).restore(pinned)
        if held & _live(table, None):
            head = lake.opened(table)
            head.delete(rows.person.predicate(head))
    except CommitFailedError:
        raise EraseError(f"{table}: another process wrote to it at the same time; run the same command again") from None
    return lake.version(table) if names_them else None


def lost_versions(table: str, files: Iterable[str]) -> set[int]:
    """The versions that name one of these data files. Raises EraseError for a log that was cut."""
    held, live, lost = {_name(key) for key in files}, set[str](), set[int]()
    for expected, (version, _, text) in enumerate(_commits(table)):
        if version != expected:
            raise EraseError(f"{table}: its log has no version {expected}, so what its old versions hold is not known")
        for line in text.splitlines():
            action = json.loads(line)
            if (added := action.get("add")) and _name(added["path"]) in held:
                live.add(_name(added["path"]))
            if removed := action.get("remove"):
                live.discard(_name(removed["path"]))
        if live:
            lost.add(version)
    return lost


def remove_files(rows: Rows, table: str) -> int:
    """Takes the statistics of the person's files out of the log, then deletes these files; how many rows they held.

    In this order: a file that is still there is found again when the command was killed.
    """
    store, folder = _store(), f"{table.replace('.', '/')}/{LOG}"
    held = {_name(key) for key in rows.files[table]}
    for key in store.keys(folder, None):
        name = _name(key)
        if name == "_last_checkpoint" or ".checkpoint." in name or name.endswith(".crc"):
            store.delete(key)
    for _, key, text in _commits(table):
        lines = [_without_keys(line, held, rows.person.numbers) for line in text.splitlines()]
        if (clean := "\n".join(lines) + "\n") != text:
            store.delete(f"{folder}/.{_name(key)}.crc")
            store.replace(key, clean.encode(), None)
    for key in rows.files[table]:
        place, slash, name = key.rpartition("/")
        store.delete(f"{place}{slash}.{name}.crc")
        store.delete(key)
    return sum(rows.files[table].values())


def _without_keys(line: str, held: set[str], numbers: frozenset[int]) -> str:
    action = json.loads(line)
    for kind in ("add", "remove"):
        if _name((action.get(kind) or {}).get("path", "")) in held and action[kind].pop("stats", None) is not None:
            line = json.dumps(action, separators=(",", ":"))
    told = (action.get("commitInfo") or {}).get("operationParameters") or {}
    for name, value in told.items():
        if "predicate" in name.lower() and isinstance(value, str) and numbered(numbers).search(value):
            told[name] = numbered(numbers).sub("erased", value)
            line = json.dumps(action, separators=(",", ":"))
    return line


def numbered(numbers: Iterable[int]) -> re.Pattern[str]:
    """One of these numbers where it stands alone: no part of a longer number, a word or a decimal."""
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(map(str, sorted(numbers, reverse=True)))})(?![\w-]|\.\d)")


def _also(product: Product) -> list[str]:
    """The key columns of the shop's tables whose rows name the entity, such as the orders' `order_id`."""
    shop = [contracts.shop(source) for source in product.sources]
    keys = [one.key[0] for one in shop if product.entity in one.columns and len(one.key) == 1]
    return [key for key in dict.fromkeys(keys) if key != product.entity]


def _data_files() -> Iterator[tuple[str, str]]:
    """Every data file of every table in the lake: the table, and the file's key below the lake."""
    for schema in lake.SCHEMAS:
        for key in sorted(_store().keys(schema, None)):
            parts = key.split("/")
            if len(parts) > 2 and LOG not in parts and key.endswith(".parquet"):
                yield f"{parts[0]}.{parts[1]}", key


def _keys_in(key: str, columns: tuple[str, ...], otherwise: tuple[str, ...]) -> pa.Table | None:
    """The columns of a data file that hold keys, or those of `otherwise` where it has none; None without all of them
    too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = _store().read(key)
    if stored is None:
        return None
    try:
        file = pq.ParquetFile(io.BytesIO(stored.content))
    except pa.ArrowInvalid:  # a killed writer cut it; no version names it, and nobody reads a row of it
        return None
    there = [column for column in columns if column in file.schema_arrow.names]
    if not there and {*otherwise} <= {*file.schema_arrow.names}:
        there = list(otherwise)
    return file.read(columns=there) if there else None


def _commits(table: str) -> Iterator[tuple[int, str, str]]:
    """The commits of a table's log in their order: version, key and text."""
    for key in sorted(_store().keys(f"{table.replace('.', '/')}/{LOG}", None)):
        if (match := COMMIT.fullmatch(_name(key))) and (stored := _store().read(key)):
            yield int(match[1]), key, stored.text


def _live(table: str, version: int | None) -> set[str]:
    return {_name(uri) for uri in lake.opened(table, version).file_uris()}


def _columns(table: str) -> set[str]:
    return {one.name for one in lake.opened(table).schema().fields}


def _name(path: str) -> str:
    """A data file's own name, which is unique in a table."""
    return unquote(path.rpartition("/")[2])


def _store() -> objects.Store:
    return objects.store_at(settings().lake_uri)
