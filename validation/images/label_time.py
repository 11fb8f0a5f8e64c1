"""The gate `label_time`: labels and features are those that were known at the cutoff, and no image is younger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from validation.images import tables
from validation.leakage_findings import Audited, Finding, counted

if TYPE_CHECKING:
    import pandas as pd


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Labels of later reviews, images and embeddings from behind the cutoff, embeddings of another moment."""
    cutoff = datetime.fromisoformat(str(audited.about["cutoff_timestamp"]))
    rows = audited.rows.assign(image=tables.base(audited.rows["image_id"]))
    clean = tables.read(audited, "clean_version", ["image_id", "event_time"])
    known_from = rows["image"].map(clean.drop_duplicates("image_id").set_index("image_id")["event_time"])
    return [
        counted("moment", rows[rows["event_timestamp"] != cutoff], limits["rows"], f"are not observed at {cutoff}"),
        counted("image", rows[known_from > cutoff], limits["rows"], f"are of images that came after {cutoff}"),
        _labels(audited, rows, cutoff, limits),
        _embeddings(audited, rows, cutoff, limits),
    ]


def _labels(audited: Audited, rows: pd.DataFrame, cutoff: datetime, limits: dict[str, float]) -> Finding:
    """Each row's label against the last statement up to the cutoff, taken by the largest (time, label) of an image."""
    names = ["image_id", "label", "event_time", "labelled_at", "batch_id"]
    told = tables.read(audited, "labels_version", names)
    told = told[(told["event_time"] <= cutoff) & ~told["batch_id"].isin(audited.about["rejected_batches"])]
    last = told.groupby("image_id")[["event_time", "labelled_at"]].transform("max")
    # Two statements of one day: the one labelled last, as a person would say.
    of_day = told[told["event_time"] == last["event_time"]]
    newest = of_day.loc[of_day.groupby("image_id")["labelled_at"].idxmax()].set_index("image_id")["label"]
    wrong = rows[rows["label"] != rows["image"].map(newest)]
    what = f"have another label than the newest known at {cutoff:%F %H:%M} UTC: one of a later review, or none"
    return counted("label", wrong, limits["rows"], what)


def _embeddings(audited: Audited, rows: pd.DataFrame, cutoff: datetime, limits: dict[str, float]) -> Finding:
    """Each row's embedding against those that its image has in the table: the last one that was computed for it."""
    stored = tables.read(audited, "data_version", ["image_id", "event_time", "created_at", "embedding"])
    stored = stored[stored["event_time"] <= cutoff]
    last = stored.groupby("image_id")["created_at"].transform("max")
    newest = stored[stored["created_at"] == last].drop_duplicates("image_id").set_index("image_id")["embedding"]
    own = rows[rows["image"] == rows["image_id"]]
    held = own["image_id"].map(newest)
    same = [
        given.tobytes() == of.tobytes() if hasattr(of, "tobytes") else False
        for given, of in zip(own["embedding"], held, strict=True)
    ]
    what = f"hold an embedding that is not the newest of their image in {audited.about['data_version']}"
    return counted("embedding", own[[not one for one in same]], limits["rows"], what)
