"""The gate `embeddings`: no clean picture is without its embedding, and an embedding is what its picture gives.

Pictures are counted from the table's own rows, one by one. Of what the run wrote every number is looked at, and a
seeded sample is embedded again, each picture alone: the bits must be the same.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from feature_repo.images import pictures
from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures import network
from plumbline.pictures.network import Network
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.verdict import Verdict
from products.images import CLEAN, EMBEDDINGS

if TYPE_CHECKING:
    import pyarrow as pa

GATE, SAMPLE = "embeddings", 20
FEW = {"batch_size": 1_024, "batch_readahead": 2, "fragment_readahead": 1}
"""How Arrow reads rows of 5 KB: some MB of them ahead, and not gigabytes."""
COLUMNS = ["image_id", "clean_sha256", "uri", "label", "preprocessing_version", "extraction_model", "embedding"]


def hold(run: StageRun, version: str, clean: pa.Table, kept: int, added: int) -> str:
    """Looks at what the run wrote of a version of embeddings; the digest of the rows that it added, in any order and
    wherever the bucket is.

    `clean` are the clean pictures, `kept` how many rows the released table has. Raises GateFailed that says what is
    wrong; nothing is set aside, for the code or the bucket is at fault.
    """
    table, pinned = EMBEDDINGS[version], run.wrote[EMBEDDINGS[version]]
    failed = _lacking(table, pinned, clean)
    if (rows := lake.rows(table, pinned)) != kept + added:
        failed.append(f"{table}@v{pinned} has {rows:,} rows, expected {kept:,} released and {added:,} new ones")
    numbers, digest, sample = _look(run, table, pinned, version)
    failed += numbers + _again(sample, version)
    told = {"rows": rows, "added": added, "clean": clean.num_rows, "sampled": len(sample), "content_sha256": digest}
    gate = f"{GATE}:{version}"
    verdict = gates.record(run, Verdict(gate, not failed, 4, tuple(failed), extra=told), {}, name=f"{GATE}-{version}")
    if failed:
        raise GateFailed(
            f"{table}@v{pinned} is not the embeddings of the clean pictures:\n  "
            + "\n  ".join(failed)
            + f"\n  Evidence: {verdict.report}. Nothing is published. If another kind of processor computed a part, "
            f"remove the folder `embeddings` in the clean bucket; then run `{run.product.command_of('features')} "
            f"--as-of {run.as_of}` again",
            sets_aside=False,
        )
    return digest


def _lacking(table: str, pinned: int, clean: pa.Table) -> list[str]:
    """Clean pictures whose newest row is of other bytes, or that have none."""
    newest: dict[str, tuple[Any, str]] = {}
    columns = ["image_id", "event_time", "created_at", "clean_sha256"]
    for batch in lake.open_table(table, pinned).to_pyarrow_dataset().to_batches(columns=columns):
        for row in batch.to_pylist():
            stamp = (row["event_time"], row["created_at"])
            if row["image_id"] not in newest or stamp >= newest[row["image_id"]][0]:
                newest[row["image_id"]] = stamp, row["clean_sha256"]
    pairs = zip(clean["image_id"].to_pylist(), clean["clean_sha256"].to_pylist(), strict=True)
    wrong = [image for image, digest in pairs if newest.get(image, ("", ""))[1] != digest]
    return [f"{len(wrong):,} pictures of {CLEAN} have no embedding of their bytes, such as {wrong[0]}"] if wrong else []


def _look(run: StageRun, table: str, pinned: int, version: str) -> tuple[list[str], str, list[dict[str, Any]]]:
    """What is wrong with the numbers of the rows that this run wrote, the rows' digest, and a sample of them."""
    import numpy as np
    import pyarrow.compute as pc

    written = pc.field("release_id") == (run.candidate.base or 0) + 1
    odd, digests = list[str](), list[bytes]()
    chosen, seen = list[dict[str, Any]](), 0
    drawn = random.Random(f"{run.candidate.run_id} {version}")  # noqa: S311 (no secret)
    rows = lake.open_table(table, pinned).to_pyarrow_dataset()
    for batch in rows.to_batches(columns=COLUMNS, filter=written, **FEW):
        for at, row in enumerate(batch.select(COLUMNS[:-1]).to_pylist()):
            numbers = batch["embedding"][at].values.to_numpy()
            named = row["preprocessing_version"] == version and row["extraction_model"] == network.extraction_model()
            whole = numbers.shape == (network.SIZE,) and bool(np.isfinite(numbers).all()) and bool(numbers.any())
            if not (named and whole):
                odd.append(row["image_id"])
            named_as = (str(value).encode() + b"\0" for name, value in row.items() if name != "uri")
            digests.append(bytes.fromhex(files.sha256(*named_as, numbers.tobytes())))
            seen += 1
            place = len(chosen) if len(chosen) < SAMPLE else drawn.randrange(seen)
            if place < SAMPLE:  # each row of the first `seen` is in it with the same chance
                chosen[place : place + 1] = [{**row, "clean_uri": row["uri"], "embedding": numbers.tobytes()}]
    told = []
    if odd:
        expected = f"{network.SIZE:,} finite numbers, not all 0, of {version} and {network.extraction_model()}"
        told.append(f"{len(odd):,} rows are not {expected}, such as that of image {odd[0]}")
    return told, files.sha256(*sorted(digests)), chosen


def _again(sample: list[dict[str, Any]], version: str) -> list[str]:
    alone = Network() if sample else None
    wrong = [
        row["image_id"] for row in sample
        if alone is not None and pictures.embeddings([row], version, alone).tobytes() != row["embedding"]
    ]  # fmt: skip
    told = f"{len(wrong)} of {len(sample)} pictures give other bits when each is embedded alone, such as image"
    return [f"{told} {wrong[0]}"] if wrong else []
