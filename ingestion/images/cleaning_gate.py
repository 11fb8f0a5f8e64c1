"""The gate `cleaning`: no raw picture is lost on the way, counted by the tables' logs and by the bucket's listing."""

from __future__ import annotations

from typing import Any

from ingestion.images import landing
from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures.decode import BadPicture, Limits
from plumbline.pictures.safe import PERHAPS_THE_CHILDS, Decoders
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.state.objects import Store
from plumbline.verdict import Verdict
from products.images import CLEAN, RAW

GATE = "cleaning"
SAMPLE = 50
FEW_REFUSED, REFUSED_SHARE = 20, 0.01
"""Pictures that may be refused for what may be the decoder's fault: so many, or this share. The largest picture takes a
quarter of the limits, so more than a few mean that the decoders fail and not the pictures."""


def hold(run: StageRun, store: Store, manifest: dict[str, Any], limits: Limits) -> None:
    """Recounts. Raises GateFailed that says what differs; nothing is set aside, the code or the bucket is at fault."""
    import pyarrow as pa
    import pyarrow.compute as pc

    version = manifest["cleaning_version"]
    rejected = pa.array(run.candidate.rejected, pa.string())
    in_raw = lake.open_table(RAW, run.pin(RAW)).to_pyarrow_dataset()
    landed = in_raw.count_rows(filter=~pc.field("batch_id").isin(rejected))
    table = lake.open_table(CLEAN, run.wrote[CLEAN])
    in_log, is_clean = int(table.count()), pc.field("state") == "clean"
    names = ["image_id", "clean_sha256", "width", "height"]
    rows = table.to_pyarrow_dataset().to_table(columns=names, filter=is_clean).to_pylist()
    objects = {key.rpartition("/")[2].removesuffix(".png") for key in store.keys(version, None)}
    ids = {row["image_id"] for row in rows}
    set_aside = in_log - len(rows)
    counts = {"raw": landed, "rows": in_log, "clean": len(ids), "quarantined": set_aside, "objects": len(objects)}
    failed = []
    if not landed == in_log == len(ids) + set_aside:
        failed.append(
            f"{landed:,} raw images, {in_log:,} rows of {CLEAN}: {len(ids):,} clean, {set_aside:,} quarantined"
        )
    stated = {name: manifest[f"total_{name}"] for name in ("raw", "clean", "quarantined")}
    if stated != {name: counts[name] for name in stated}:
        failed.append(f"the manifest says {stated}, the tables {counts}")
    refused = sum(manifest["quarantined"].get(reason, 0) for reason in PERHAPS_THE_CHILDS)
    if refused > max(FEW_REFUSED, landed * REFUSED_SHARE):
        failed.append(
            f"{refused:,} of {landed:,} images were refused for {', '.join(PERHAPS_THE_CHILDS)}: so many are not "
            "the pictures' fault; look at the machine's memory and load"
        )
    if lost := sorted(ids - objects):
        failed.append(f"{len(lost):,} clean images have no object in {store.where(version)}, such as {lost[0]}")
    sample = [row for row in rows[:: max(1, len(rows) // SAMPLE)] if row["image_id"] in objects]
    with Decoders(limits, children=1) as decoders:
        failed += [told for row in sample if (told := _differs(store, decoders, version, row))]
    counts["sampled"], evidence = len(sample), {"manifest": manifest}
    verdict = gates.record(run, Verdict(GATE, not failed, 5 + len(sample), tuple(failed), extra=counts), evidence)
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
