"""Errors as libraries really raise them, and what is made of them."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from plumbline import causes, files
from plumbline.errors import ServiceUnavailable
from plumbline.settings import settings


def raised(work) -> Exception:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception) as error:  # noqa: PT011
        work()
    return error.value


def test_a_full_disk_is_known_by_number_by_word_and_behind_another_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    first = raised(lambda: full.open("w", buffering=1).write("x\n"))
    assert isinstance(first, OSError) and first.errno == errno.ENOSPC
    wrapped = RuntimeError("the library's own words")
    wrapped.__cause__ = first
    for error in (first, wrapped, sqlite3.OperationalError("database or disk is full")):
        told = causes.explained(error)
        assert isinstance(told, causes.DiskTrouble)
        assert "no room left on the disk of " in str(told) and "run the same again" in str(told)


def test_a_path_below_a_file_is_known_when_it_is_the_homes(home: Path) -> None:
    home.mkdir()
    (home / "releases").write_text("")
    told = causes.explained(raised(lambda: files.create_once(home / "releases" / "churn" / "1.json", "")))
    assert str(told).startswith(f"cannot write to {home}/releases")
    assert causes.explained(raised(lambda: Path("/proc/nowhere/x").write_text(""))) is None


def test_a_redis_that_is_gone_is_a_service_that_is_away(home: Path) -> None:
    import redis

    told = causes.explained(raised(redis.Redis(port=1).ping))
    assert isinstance(told, ServiceUnavailable)
    assert "went away" in str(told)


def test_a_server_that_is_gone_is_told_from_what_grpc_says(home: Path) -> None:
    said = (
        "<_MultiThreadedRendezvous of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n"
        '\tdetails = "Connection refused"\n>'
    )
    told = causes.said(said)
    assert isinstance(told, ServiceUnavailable)
    assert str(told).startswith("Spark went away: Connection refused. Its log is ")
    assert str(settings().home / "logs" / "spark.log") in str(told)


def test_what_is_not_known_stays_what_it_is() -> None:
    assert causes.explained(KeyError("customer_id")) is None
    assert causes.explained(causes.DiskTrouble("ours already")) is None
    assert causes.explained(KeyboardInterrupt()) is None
