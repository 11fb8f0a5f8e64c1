"""The gate `cleaning`: no raw picture is lost on the way, counted by the tables' logs and by the bucket's listing."""

from __future__ import annotations

from typing import Any

from ingestion.images import landing
from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures.decode import BadPicture
from plumbline.pictures.safe import Decoders
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.state.objects import Store
from plumbline.verdict import Verdict
from products.images import CLEAN

GATE = "cleaning"
SAMPLE = 50


def hold(run: StageRun, store: Store, raw: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    """Recounts. Raises GateFailed that says what differs; nothing is set aside, the code or the bucket is at fault."""
    import pyarrow.compute as pc

    version = manifest["cleaning_version"]
    table = lake.open_table(CLEAN, run.wrote[CLEAN])
    in_log, is_clean = int(table.count()), pc.field("state") == "clean"
    names = ["image_id", "clean_sha256", "width", "height"]
    rows = table.to_pyarrow_dataset().to_table(columns=names, filter=is_clean).to_pylist()
    objects = {key.rpartition("/")[2].removesuffix(".png") for key in store.keys(version, None)}
    ids = {row["image_id"] for row in rows}
    failed = []
    if in_log != len(raw):
        failed.append(f"{CLEAN} has {in_log:,} rows, raw {len(raw):,} images")
    if len(ids) + manifest["total_quarantined"] != len(raw):
        failed.append(f"{len(raw):,} raw images: {len(ids):,} clean, {manifest['total_quarantined']:,} quarantined")
    if lost := sorted(ids - objects):
        failed.append(f"{len(lost):,} clean images have no object in {store.where(version)}, such as {lost[0]}")
    sample = [row for row in rows[:: max(1, len(rows) // SAMPLE)] if row["image_id"] in objects]
    with Decoders(children=1) as decoders:
        failed += [told for row in sample if (told := _differs(store, decoders, version, row))]
    counts = {"raw": len(raw), "clean": len(ids), "quarantined": manifest["quarantined"], "sampled": len(sample)}
    verdict = gates.record(run, Verdict(GATE, not failed, 4, tuple(failed), extra=counts), {"manifest": manifest})
    if failed:
        again = f"`{run.product.command_of('clean')} --as-of {run.as_of}`"
        raise GateFailed(
            "cleaning lost or altered images:\n  "
            + "\n  ".join(failed)
            + f"\n  Evidence: {verdict.report}. Nothing is published; run {again} again",
            sets_aside=False,
        )


def _differs(store: Store, decoders: Decoders, version: str, row: dict[str, Any]) -> str | None:
    """What is wrong with a clean object; None when it is what its row says."""
    key = f"{version}/{row['image_id'][:2]}/{row['image_id']}.png"
    content = landing.read(store, key)
    if files.sha256(content) != row["clean_sha256"]:
        return f"{store.where(key)} does not hold the bytes that {CLEAN} names by their sha256"
    try:
        height, width, _ = decoders.decoded(content, key).rgb.shape
    except BadPicture as bad:
        return f"{store.where(key)} cannot be decoded: {bad}"
    if (width, height) != (row["width"], row["height"]):
        return f"{store.where(key)} is {width} x {height}, its row says {row['width']} x {row['height']}"
    return None
