"""What `plumb images why` prints of an image."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from plumb.reports import images_why


def test_square_brackets_in_names_and_labels_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 26, tzinfo=UTC)
    raw = {"source_name": "p [red].png", "source": "/sets/[a]", "format": "png", "size_bytes": 9, "minio_uri": "/[b]/x"}
    found = {
        "image_id": "ab",
        "release_id": 1,
        "raw": raw,
        "labels": [{"label": "[/cat]", "labelled_by": "[ada]", "labelled_at": at}],
        "clean": {"state": "quarantined", "cleaning_version": "c1", "reason": "broken", "detail": "[/png]"},
        "near_duplicates": [],
        "embeddings": [],
        "datasets": {"d": {"split": "train", "label": "[dog]"}},
        "answers": [],
    }
    images_why.show(found)
    said = capsys.readouterr().out
    for text in ("p [red].png of /sets/[a]", "/[b]/x", "[/cat], by [ada]", "broken, [/png]", "labelled [dog]"):
        assert text in said
