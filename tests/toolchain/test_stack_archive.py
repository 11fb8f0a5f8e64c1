"""The archive of a stack's buckets: what was saved comes back, and nothing else passes for it."""

from __future__ import annotations

import io
import sys
import tarfile
from typing import Any

import pytest

from plumbline.settings import ROOT

sys.path.insert(0, str(ROOT / "docker" / "stack"))
import s3_archive


class Buckets:
    """Buckets in memory, by the calls that the archive makes: what S3 answers is tried in the stack."""

    class exceptions:
        class NoSuchKey(Exception): ...

    def __init__(self, held: dict[str, bytes]) -> None:
        self.held, self.read = held, list[str]()

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, Bucket: str) -> list[dict[str, Any]]:
        found = [key.partition("/")[2] for key in self.held if key.startswith(f"{Bucket}/")]
        return [{"Contents": [{"Key": key} for key in found]}] if found else [{}]

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.read.append(f"{Bucket}/{Key}")
        if self.held[f"{Bucket}/{Key}"] == b"gone":
            raise self.exceptions.NoSuchKey
        return {"Body": io.BytesIO(self.held[f"{Bucket}/{Key}"])}

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        self.held[f"{Bucket}/{Key}"] = Body


HELD = {
    "lake/raw/orders/part-0.parquet": b"rows" * 1000,
    "lake/raw/orders/_delta_log/00000000000000000000.json": b"{}",
    "state/releases/0001.json": b"{}",
    f"lake/{'long/' * 30}": b"",
    "models/churn/stable.json": b"",
    "artifacts/1/model.ubj": bytes(range(256)),
}


def saved(held: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    s3_archive.save(Buckets(held), stream)
    return stream.getvalue()


def test_what_was_saved_comes_back_and_what_points_was_read_first() -> None:
    hint = {"lake/raw/orders/_delta_log/_last_checkpoint": b"of a checkpoint that came after the list was made"}
    from_ = Buckets({**HELD, **hint, "lake/raw/orders/vacuumed.parquet": b"gone"})
    stream = io.BytesIO()
    assert s3_archive.save(from_, stream) == "6 objects, 0 MB"
    assert from_.read[:2] == ["state/releases/0001.json", "lake/raw/orders/_delta_log/00000000000000000000.json"]
    into = Buckets({})
    s3_archive.load(into, io.BytesIO(stream.getvalue()))
    assert into.held == HELD


def test_into_a_bucket_that_holds_something_nothing_is_laid() -> None:
    into = Buckets({"models/mine": b"x"})
    with pytest.raises(SystemExit, match="bucket models is not empty"):
        s3_archive.load(into, io.BytesIO(saved(HELD)))
    assert into.held == {"models/mine": b"x"}


def test_a_changed_byte_and_a_cut_stream_are_told() -> None:
    whole = saved(HELD)
    changed = whole.replace(b"rowsrows", b"rowsrowz", 1)
    assert changed != whole
    with pytest.raises(SystemExit, match=r"lake/raw/orders/part-0.parquet: not the bytes that were saved"):
        s3_archive.load(Buckets({}), io.BytesIO(changed))
    for length in range(0, len(whole) - 512 * 20, 512):
        with pytest.raises(SystemExit, match="is cut"):
            s3_archive.load(Buckets({}), io.BytesIO(whole[:length]))
    with pytest.raises(SystemExit, match="is cut or is no backup"):
        s3_archive.load(Buckets({}), io.BytesIO(b"no archive at all"))


def test_an_object_without_its_digest_is_refused() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("lake/x")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(SystemExit, match="lake/x: not the bytes"):
        s3_archive.load(Buckets({}), io.BytesIO(stream.getvalue()))
