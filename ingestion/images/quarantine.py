"""What cleaning set aside, at a release: which picture, of which source, why, and what was seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pictures.decode import REASONS
from plumbline.state import releases
from products.images import CLEAN, IMAGES, RAW


class QuarantineError(PlumblineError):
    """A reason that cleaning never gives."""


def listed(release_id: int | None = None, reason: str | None = None) -> list[dict[str, Any]]:
    """One entry each, by reason and id: image_id, reason, detail, duplicate_of, source, source_name, minio_uri, label.

    Raises QuarantineError for an unknown reason, ReleaseError without a release.
    """
    import pyarrow.compute as pc

    if reason is not None and reason not in REASONS:
        raise QuarantineError(f"reason {reason!r}: expected one of {', '.join(REASONS)}")
    release = releases.required(IMAGES.name, release_id)
    aside = pc.field("state") == "quarantined"
    chosen = aside if reason is None else aside & (pc.field("reason") == reason)
    names = ["image_id", "reason", "detail", "duplicate_of"]
    clean = lake.opened(CLEAN, release.version(CLEAN)).to_pyarrow_dataset().to_table(columns=names, filter=chosen)
    more = ["image_id", "source", "source_name", "minio_uri", "label_at_ingestion"]
    raw = lake.opened(RAW, release.version(RAW)).to_pyarrow_dataset()
    landed = raw.to_table(columns=more, filter=pc.field("image_id").isin(clean["image_id"].combine_chunks()))
    by_id = {row["image_id"]: row for row in landed.to_pylist()}
    entries = [row | by_id.get(row["image_id"], {}) for row in clean.to_pylist()]
    return sorted(entries, key=lambda entry: (entry["reason"], entry["image_id"]))


def told(entries: list[dict[str, Any]], most: int) -> str:
    """The same for people: how many of each reason, then each picture on a line, `most` of them."""
    if not entries:
        return "nothing is in quarantine"
    lines = [
        f"{count:>7,}  {reason:<18} {REASONS[reason]}"
        for reason, count in sorted(Counter(entry["reason"] for entry in entries).items())
    ]
    lines.append("")
    lines += [
        f"{entry['image_id']}  {entry['reason']:<18} {entry.get('source_name')}: {entry['detail']}"
        for entry in entries[:most]
    ]
    if len(entries) > most:
        lines.append(f"… and {len(entries) - most:,} more: --reason or --json shows them")
    return "\n".join(lines)
