"""The gate `augmented_copies`: a picture and what was made from it are on one side of the split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from validation.images import tables
from validation.leakage_findings import Audited, Finding, counted

if TYPE_CHECKING:
    import pandas as pd


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Copies (`<image_id>~<n>`) away from their picture, rows of no known picture, and embeddings on two sides."""
    rows = audited.rows.assign(image=tables.base(audited.rows["image_id"]))
    clean = tables.read(audited, "clean_version", ["image_id", "state"])
    usable = set(clean[clean["state"] == "clean"]["image_id"])
    sides = rows.groupby("image")["split"].transform("nunique")
    return [
        counted("copies", rows[sides > 1], limits["rows"], "share their picture with a row on another side"),
        counted("unknown pictures", rows[~rows["image"].isin(usable)], limits["rows"], "are of no clean picture"),
        counted("same embedding", _same(rows), limits["rows"], "to test with have the embedding of one to train on"),
    ]


def _same(rows: pd.DataFrame) -> pd.DataFrame:
    content = rows["embedding"].map(lambda values: values.tobytes())
    return rows[(rows["split"] == "test") & content.isin(set(content[rows["split"] == "train"]))]
