"""A full disk, a home that cannot be written, two runs at once: one clear message, its exit code, nothing lost; when
the cause is gone the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from drills.striking import PLUMB, started
from ingestion.churn import cdnow as shop
from plumbline.lake import tables as lake
from plumbline.state import ledger, releases
from tests.conftest import use_home
from tests.e2e.test_whole_path import plumb

pytestmark = pytest.mark.slow

DAY, NEXT = "1997-01-19", "1997-01-20"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mounts a small disk on a folder, or mounts it again with other options; needs root."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if folder in mounted:
            options = f"remount,{options}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def shop_elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real orders up to 1997-01-20 in a shop outside the home."""
    use_home(home, monkeypatch, shop_url=f"sqlite:///{tmp_path / 'shop.sqlite'}")
    shop.load(until=date(1997, 1, 20))


def fill(folder: Path) -> Path:
    """Leaves not one byte of room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return filler


def done(*command: str) -> None:
    ended = plumb(*command)
    assert ended.returncode == 0, ended.stderr


def refused(code: int, *command: str) -> str:
    ended = plumb(*command)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("plumb: ")]
    assert len(said) == 1, ended.stderr
    return said[0]


@pytest.mark.usefixtures("with_spark", "shop_elsewhere")
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(home: Path, disk: Callable[..., None]) -> None:
    disk(home / "lake", "size=64k")
    assert "no room left on the disk of " in refused(1, "ingest", "--as-of", DAY)
    disk(home / "lake", "size=20m")
    done("ingest", "--as-of", DAY)

    filler = fill(home / "lake")
    assert "no room left on the disk of " in refused(1, "dbt_run", "--as-of", DAY)
    assert [event["state"] for event in ledger.events("churn")][-1] == "FAIL"
    filler.unlink()
    for stage in ("dbt_run", "ge_check", "features", "activity", "distribution_check"):
        done(stage, "--as-of", DAY)

    disk(home / "releases", "size=16k")
    filler = fill(home / "releases")
    assert "no room left on the disk of " in refused(1, "release", "--as-of", DAY)
    assert releases.numbers("churn") == []
    filler.unlink()
    done("release", "--as-of", DAY)
    release = releases.required("churn")
    orders = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas()
    expected = [o.order_id for o in shop.read(shop.packaged()) if o.order_date <= date(1997, 1, 19)]
    assert sorted(orders["order_id"]) == expected


@pytest.mark.usefixtures("shop_elsewhere")
def test_a_home_without_any_room_is_said_too(home: Path, disk: Callable[..., None]) -> None:
    disk(home, "size=2m")
    filler = fill(home)
    assert "no room left on the disk of " in refused(1, "ingest", "--as-of", DAY)
    filler.unlink()
    done("ingest", "--as-of", DAY)


@pytest.mark.usefixtures("shop_elsewhere")
def test_a_home_that_cannot_be_written_is_said(home: Path, disk: Callable[..., None]) -> None:
    disk(home, "size=20m")
    disk(home, "ro")
    message = refused(1, "ingest", "--as-of", DAY)
    assert (
        message.startswith((f"plumb: cannot write to {home}/", f"plumb: cannot write to {home}:"))
        and "Read-only file system" in message
    )
    disk(home, "rw")
    done("ingest", "--as-of", DAY)


@pytest.mark.usefixtures("shop_elsewhere")
def test_a_file_where_the_home_should_be_is_said(home: Path) -> None:
    home.write_text("")
    for command in (("ingest", "--as-of", DAY), ("materialize",), ("train",), ("up",)):
        ended = plumb(*command)
        assert ended.returncode == 2, ended.stderr
        assert "PLUMBLINE_HOME: Value error, is there and is not a folder" in ended.stderr
    home.unlink()
    done("ingest", "--as-of", DAY)


@pytest.mark.usefixtures("shop_elsewhere")
@pytest.mark.parametrize("day", [DAY, NEXT])
def test_of_two_runs_at_once_the_second_is_told_and_goes_on_after(home: Path, day: str) -> None:
    seen = started("ingest")(home)
    first = subprocess.Popen([PLUMB, "ingest", "--as-of", DAY], stderr=subprocess.PIPE, text=True)
    try:
        while not seen():
            assert first.poll() is None
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGSTOP)
        assert f"another run of churn is at work (held by pid {first.pid} on " in refused(5, "ingest", "--as-of", day)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=120)
    assert first.returncode == 0
    done("ingest", "--as-of", day)
    landed = lake.open_table("raw.orders").to_pandas()
    assert landed["order_id"].is_unique
    assert [event["state"] for event in ledger.events("churn")].count("COMPLETE") == (1 if day == DAY else 2)
