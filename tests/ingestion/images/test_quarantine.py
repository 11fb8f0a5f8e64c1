"""`plumb images quarantine`: what was set aside at a release, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.images import quarantine
from ingestion.images.quarantine import QuarantineError
from plumbline.state.releases import ReleaseError
from tests.ingestion.images.conftest import DAY, NEXT, folder_of, landed, png, released
from tests.plumbline.pictures.malformed import encoded, rgb


def test_what_was_set_aside_is_listed_by_reason_at_the_release_that_is_asked_for(tmp_path: Path) -> None:
    files = {"a.png": png(1), "again.bmp": encoded(rgb(1), "BMP"), "half.png": png(2)[:400]}
    folder = folder_of(tmp_path / "set", files, "half.png,dog\n")
    landed(str(folder))
    released(DAY)
    landed(str(folder_of(folder, {"empty.jpg": b""}, "half.png,dog\n")), NEXT)
    released(NEXT)

    entries = quarantine.listed()
    assert [
        (e["source_name"], e["reason"], e["label_at_ingestion"]) for e in entries if e["reason"] != "duplicate"
    ] == [
        ("empty.jpg", "empty", None),
        ("half.png", "truncated", "dog"),
    ]
    assert [e["reason"] for e in entries] == ["duplicate", "empty", "truncated"]
    assert [e["reason"] for e in quarantine.listed(release_id=1)] == ["duplicate", "truncated"]
    assert [e["source_name"] for e in quarantine.listed(reason="truncated")] == ["half.png"]
    text = quarantine.told(entries, most=2)
    assert "      1  truncated          the end is missing" in text
    assert text.endswith("… and 1 more: --reason or --json shows them")
    assert "empty              empty.jpg: 0 bytes" in text


def test_a_reason_that_there_is_not_and_a_home_without_a_release_say_so() -> None:
    with pytest.raises(QuarantineError, match="reason 'ugly': expected one of empty, too_many_bytes"):
        quarantine.listed(reason="ugly")
    with pytest.raises(ReleaseError):
        quarantine.listed()
    assert quarantine.told([], most=5) == "nothing is in quarantine"
