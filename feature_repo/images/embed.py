"""Stage 03: each clean picture gets an embedding of each version, once; what is there is never computed again.

A version (`v1`, `v2`) is a preprocessing with a network, a table of its own and a view of Feast's over it. What a run
computes is kept part by part in the clean bucket (parts.py), so that a run which was killed goes on where it was; the
rows then go into the table in one commit. An embedding of an older cleaning stays beside the new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from feature_repo.images.parts import Parts, arrays
from plumbline import clock, files
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pictures import network, preprocess
from plumbline.pictures.network import Network
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import objects
from products.images import CLEAN, EMBEDDINGS, RAW

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

BATCH = 8
"""Pictures in one call of the network: more are slower, for they leave the processor's cache."""
PART = 256
"""Pictures in one part: what a kill can lose, a second of work."""
READERS, AHEAD = 4, 64
"""Threads that read and prepare pictures, and how many pictures they are ahead: memory stays flat."""
SECONDS_BETWEEN_LINES = 3.0


class EmbedError(PlumblineError):
    """A clean picture is not what its row says, or there is no such version."""


def embed(run: StageRun, versions: Sequence[str] = ()) -> str:
    """Embeds what has no embedding yet, at these versions (default: the setting's) and those that the release has.

    Raises EmbedError that names the version or the picture.
    """
    asked = versions or settings().images_embeddings.split(",")
    if unknown := [version for version in asked if version not in EMBEDDINGS]:
        raise EmbedError(f"no version {', '.join(unknown)} of embeddings: there are {', '.join(EMBEDDINGS)}")
    released = run.released(*EMBEDDINGS.values())
    chosen = [version for version, table in EMBEDDINGS.items() if version in asked or table in released]
    pictures = clean_pictures(run)
    loaded = Network()
    return "; ".join(_embed(run, version, pictures, loaded) for version in chosen)


def clean_pictures(run: StageRun) -> pa.Table:
    """The clean pictures of this run, with the label that each came with, sorted by image_id."""
    import pyarrow.compute as pc

    names = ["image_id", "event_time", "ingestion_timestamp", "clean_uri", "clean_sha256", "cleaning_version"]
    clean = lake.open_table(CLEAN, run.pin(CLEAN)).to_pyarrow_dataset()
    raw = lake.open_table(RAW, run.pin(RAW)).to_pyarrow_dataset()
    pictures = clean.to_table(columns=names, filter=pc.field("state") == "clean")
    labels = raw.to_table(columns=["image_id", "label_at_ingestion"])
    return pictures.join(labels, "image_id").sort_by("image_id").rename_columns([*names, "label"])


def _embed(run: StageRun, version: str, pictures: pa.Table, loaded: Network) -> str:
    from deltalake import write_deltalake

    table, released = EMBEDDINGS[version], run.released(EMBEDDINGS[version]).get(EMBEDDINGS[version])
    lake.reset(table, schema(), released)
    lacking = without_embedding(pictures, table, released)
    parts = Parts(version)
    parts.remove_all_but(lacking["clean_sha256"].to_pylist())
    begun, computed = clock.monotonic(), _compute(version, lacking, parts, loaded)
    seconds = clock.monotonic() - begun
    if lacking.num_rows or released is None:
        rows = _rows(run, version, lacking, parts)
        write_deltalake(lake.uri(table), rows, mode="append", storage_options=lake.storage_options())
    pinned = lake.version(table) if lacking.num_rows or released is None else released
    run.write(table, int(pinned or 0), lacking.num_rows)
    rate = computed / seconds if computed else 0.0
    return f"{lacking.num_rows:,} of {pictures.num_rows:,} clean images embedded at {version}" + (
        f" ({rate:,.0f} images/s)" if computed else ""
    )


def schema() -> pa.Schema:
    """The columns of a table of embeddings."""
    import pyarrow as pa

    stamp, text = pa.timestamp("us", "UTC"), pa.string()
    return pa.schema(
        {
            "image_id": text,
            "event_time": stamp,
            "created_at": stamp,
            "ingestion_timestamp": stamp,
            "uri": text,
            "clean_sha256": text,
            "embedding": pa.list_(pa.float32()),
            "label": text,
            "preprocessing_version": text,
            "extraction_model": text,
            "cleaning_version": text,
            "release_id": pa.int64(),
        }
    )


def without_embedding(pictures: pa.Table, table: str, version: int | None) -> pa.Table:
    """Of these pictures, those whose newest row in a version of the table is of another clean picture, or absent."""
    if version is None:
        return pictures
    names = ["image_id", "event_time", "created_at", "clean_sha256"]
    rows = lake.open_table(table, version).to_pyarrow_dataset().to_table(columns=names).to_pandas()
    newest = rows.sort_values(names[:3], kind="stable").drop_duplicates("image_id", keep="last")
    embedded = dict(zip(newest["image_id"], newest["clean_sha256"], strict=True))
    asked = zip(pictures["image_id"].to_pylist(), pictures["clean_sha256"].to_pylist(), strict=True)
    return _where(pictures, [embedded.get(image) != digest for image, digest in asked])


def _where(pictures: pa.Table, chosen: list[bool]) -> pa.Table:
    import pyarrow as pa

    return pictures.filter(pa.array(chosen, pa.bool_()))


def _compute(version: str, lacking: pa.Table, parts: Parts, loaded: Network) -> int:
    """Embeds what no part has yet, part by part; how many pictures that were."""
    due = _where(lacking, [digest not in parts for digest in lacking["clean_sha256"].to_pylist()])
    if kept := lacking.num_rows - due.num_rows:
        say(f"{kept:,} embeddings at {version} are there from an earlier try of a run")
    begun = said = clock.monotonic()
    for start in range(0, due.num_rows, PART):
        rows = due.slice(start, PART).to_pylist()
        parts.put([row["clean_sha256"] for row in rows], embeddings(rows, version, loaded))
        done, now = start + len(rows), clock.monotonic()
        if now - said > SECONDS_BETWEEN_LINES:
            rate = done / (now - begun)
            left = (due.num_rows - done) / rate
            say(f"embedded {done:,} of {due.num_rows:,} images at {version}: {rate:,.0f}/s, {left:,.0f} s left")
            said = now
    return int(due.num_rows)


def embeddings(rows: Sequence[dict[str, Any]], version: str, loaded: Network) -> NDArray[np.float32]:
    """The embeddings (n, 1280) of clean pictures, read from the clean bucket, in the rows' order."""
    import numpy as np

    made = np.empty((len(rows), network.SIZE), np.float32)
    prepared = _prepared(rows, version)
    for start in range(0, len(rows), BATCH):
        size = min(BATCH, len(rows) - start)
        made[start : start + size] = loaded.embed(np.stack([next(prepared) for _ in range(size)]))
    return made


def _prepared(rows: Sequence[dict[str, Any]], version: str) -> Iterator[NDArray[np.float32]]:
    """Each picture as the network reads it; threads read and prepare the ones ahead."""
    store = objects.store_at(settings().bucket("clean-images"))

    def prepare(row: dict[str, Any]) -> NDArray[np.float32]:
        key = "/".join(row["clean_uri"].rsplit("/", 3)[1:])  # wherever the bucket has moved to
        there = store.read(key)
        found = "nothing" if there is None else files.sha256(there.content)
        if there is None or found != row["clean_sha256"]:
            raise EmbedError(
                f"{store.where(key)}: expected the clean picture of sha256 {row['clean_sha256']}, found {found}. "
                "Nothing is published; bring the object back, or clean again"
            )
        return preprocess.preprocess(preprocess.pixels(there.content), version)

    waiting = deque[Future["NDArray[np.float32]"]]()
    with ThreadPoolExecutor(READERS) as threads:
        for row in rows:
            waiting.append(threads.submit(prepare, row))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _rows(run: StageRun, version: str, lacking: pa.Table, parts: Parts) -> pa.RecordBatchReader:
    """The table's new rows, some hundred in memory at a time."""
    import pyarrow as pa

    columns, now = schema(), clock.now()
    same = {
        "created_at": now,
        "preprocessing_version": version,
        "extraction_model": network.extraction_model(),
        "release_id": (run.candidate.base or 0) + 1,
    }

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, lacking.num_rows, PART):
            given = lacking.slice(start, PART).rename_columns({"clean_uri": "uri"}).combine_chunks()
            taken = {"embedding": arrays(parts.take(given["clean_sha256"].to_pylist()))}
            for name, value in same.items():
                taken[name] = pa.array([value] * len(given), columns.field(name).type)
            arrow = [taken.get(name, given[name] if name in given.column_names else None) for name in columns.names]
            table = pa.table(arrow, names=columns.names).cast(columns)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(columns, batches())
