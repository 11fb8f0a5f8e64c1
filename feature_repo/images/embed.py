"""Stage 03: each clean picture gets an embedding of each version, once; what is there is never computed again.

A version (`v1`, `v2`) is a preprocessing with a network, a table of its own and a view of Feast's over it. What a run
computes is kept part by part in the clean bucket (parts.py), so that a run which was killed goes on where it was; the
rows then go into the table, some thousand a commit, and the release names the version behind the last one. An embedding
of an older cleaning stays beside the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from feature_repo.images import embeddings_gate, pictures
from feature_repo.images.parts import Parts, arrays
from plumbline import clock, files
from plumbline.contracts import contract as contracts
from plumbline.contracts import quality
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pictures import network
from plumbline.pictures.network import Network
from plumbline.pipeline import contract_gate
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import objects
from products.images import CLEAN, EMBEDDINGS, RAW

if TYPE_CHECKING:
    import pyarrow as pa

PART = 256
"""Pictures in one part: what a kill can lose, a second of work."""
ROW_GROUP = 2_048
"""Rows that a reader has to hold at least: 10 MB."""
COMMIT = 40 * PART
"""Rows in one commit: the writer holds all of one, 50 MB."""
SECONDS_BETWEEN_LINES = 3.0


class EmbedError(PlumblineError):
    """There is no such version of embeddings."""


def embed(run: StageRun, versions: Sequence[str] = ()) -> str:
    """Embeds what has no embedding yet, at these versions (default: the setting's) and those that the release has.

    Raises EmbedError that names the version, PictureError that names the picture, GateFailed.
    """
    asked = versions or settings().images_embeddings.split(",")
    if unknown := [version for version in asked if version not in EMBEDDINGS]:
        raise EmbedError(f"no version {', '.join(unknown)} of embeddings: there are {', '.join(EMBEDDINGS)}")
    released = run.released(*EMBEDDINGS.values())
    chosen = [version for version, table in EMBEDDINGS.items() if version in asked or table in released]
    clean, loaded = clean_pictures(run), Network()
    run.facts |= {"extraction_model": network.extraction_model(), "manifests": {}}
    return "; ".join(_embed(run, version, clean, loaded) for version in chosen)


def clean_pictures(run: StageRun) -> pa.Table:
    """The clean pictures of this run, with the label that each came with, sorted by image_id."""
    import pyarrow.compute as pc

    names = ["image_id", "event_time", "ingestion_timestamp", "clean_uri", "clean_sha256", "cleaning_version"]
    clean = lake.open_table(CLEAN, run.pin(CLEAN)).to_pyarrow_dataset()
    raw = lake.open_table(RAW, run.pin(RAW)).to_pyarrow_dataset()
    chosen = clean.to_table(columns=names, filter=pc.field("state") == "clean")
    labels = raw.to_table(columns=["image_id", "label_at_ingestion"])
    return chosen.join(labels, "image_id").sort_by("image_id").rename_columns([*names, "label"])


def _embed(run: StageRun, version: str, clean: pa.Table, loaded: Network) -> str:
    table, released = EMBEDDINGS[version], run.released(EMBEDDINGS[version]).get(EMBEDDINGS[version])
    columns = quality.arrow_schema(contracts.load(table).columns.values())
    lake.reset(table, columns, released)
    lacking = without_embedding(clean, table, released)
    parts = Parts(version)
    parts.remove_all_but(lacking["clean_sha256"].to_pylist())
    begun, computed = clock.monotonic(), _compute(version, lacking, parts, loaded)
    seconds = clock.monotonic() - begun
    pinned = released
    if lacking.num_rows or pinned is None:
        created_at = _created_at(table, released)
        for start in range(0, max(lacking.num_rows, 1), COMMIT):
            _append(table, _rows(run, columns, version, created_at, lacking.slice(start, COMMIT), parts))
        pinned = lake.version(table) or 0
    run.write(table, pinned, lacking.num_rows)
    kept = lake.rows(table, released) if released is not None else 0
    digest = embeddings_gate.hold(run, version, clean, kept, lacking.num_rows)
    contract_gate.audit(run, table, pinned)
    _leave_manifest(run, version, digest, clean.num_rows, seconds if computed else None)
    rate = f" ({computed / seconds:,.0f} images/s)" if computed else ""
    return f"{lacking.num_rows:,} of {clean.num_rows:,} clean images embedded at {version}{rate}"


def _append(table: str, rows: pa.RecordBatchReader) -> None:
    from deltalake import WriterProperties, write_deltalake

    groups = WriterProperties(max_row_group_size=ROW_GROUP)
    write_deltalake(
        lake.uri(table), rows, mode="append", writer_properties=groups, storage_options=lake.storage_options()
    )


def _leave_manifest(run: StageRun, version: str, digest: str, clean: int, seconds: float | None) -> None:
    """The stage's artifact, in the clean bucket: which version of the table it wrote, and the digest of its new rows.

    The table is what other places call feast_features.parquet: Parquet files with those columns, which no later run
    changes. So they are named here and not copied.
    """
    table = EMBEDDINGS[version]
    manifest = {
        "table": table,
        "version": run.wrote[table],
        "files": sorted(lake.open_table(table, run.wrote[table]).file_uris()),
        "preprocessing_version": version,
        "extraction_model": network.extraction_model(),
        "clean_images": clean,
        "rows_added": run.rows[table],
        "content_sha256": digest,
    }
    text = files.dumps(manifest)
    key = f"manifests/features_manifest-{run.candidate.run_id}-{version}-{files.sha256(text.encode())[:12]}.json"
    store = objects.store_at(settings().bucket("clean-images"))
    try:
        store.create(key, text.encode())
    except objects.Exists:
        pass
    told = {"where": store.where(key), "content_sha256": digest, "seconds": seconds and round(seconds, 2)}
    run.facts["manifests"] |= {version: told}


def without_embedding(clean: pa.Table, table: str, version: int | None) -> pa.Table:
    """Of these pictures, those whose newest row in a version of the table is of another clean picture, or absent."""
    if version is None:
        return clean
    names = ["image_id", "event_time", "created_at", "clean_sha256"]
    rows = lake.open_table(table, version).to_pyarrow_dataset().to_table(columns=names).to_pandas()
    newest = rows.sort_values(names[:3], kind="stable").drop_duplicates("image_id", keep="last")
    embedded = dict(zip(newest["image_id"], newest["clean_sha256"], strict=True))
    asked = zip(clean["image_id"].to_pylist(), clean["clean_sha256"].to_pylist(), strict=True)
    return _where(clean, [embedded.get(image) != digest for image, digest in asked])


def _where(rows: pa.Table, chosen: list[bool]) -> pa.Table:
    import pyarrow as pa

    return rows.filter(pa.array(chosen, pa.bool_()))


def _created_at(table: str, version: int | None) -> datetime:
    """Now, and after all rows that are there: of a picture's rows the one that was created last counts, in a replay
    whose clock stands still too."""
    import pyarrow.compute as pc

    now = clock.now()
    if version is None:
        return now
    rows = lake.open_table(table, version).to_pyarrow_dataset().to_table(columns=["created_at"])
    last = pc.max(rows["created_at"]).as_py()
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _compute(version: str, lacking: pa.Table, parts: Parts, loaded: Network) -> int:
    """Embeds what no part has yet, part by part; how many pictures that were."""
    due = _where(lacking, [digest not in parts for digest in lacking["clean_sha256"].to_pylist()])
    if kept := lacking.num_rows - due.num_rows:
        say(f"{kept:,} embeddings at {version} are there from an earlier try of a run")
    begun = said = clock.monotonic()
    for start in range(0, due.num_rows, PART):
        rows = due.slice(start, PART).to_pylist()
        parts.put([row["clean_sha256"] for row in rows], pictures.embeddings(rows, version, loaded))
        done, now = start + len(rows), clock.monotonic()
        if now - said > SECONDS_BETWEEN_LINES:
            rate = done / (now - begun)
            left = (due.num_rows - done) / rate
            say(f"embedded {done:,} of {due.num_rows:,} images at {version}: {rate:,.0f}/s, {left:,.0f} s left")
            said = now
    return int(due.num_rows)


def _rows(
    run: StageRun, columns: pa.Schema, version: str, created_at: datetime, lacking: pa.Table, parts: Parts
) -> pa.RecordBatchReader:
    """The table's new rows, some hundred in memory at a time."""
    import pyarrow as pa

    same = {
        "created_at": created_at,
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
