"""What a process sees of Spark when its server dies, and what a killed process leaves at work on the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.errors import ServiceUnavailable
from plumbline.lake import spark
from plumbline.servers import services

pytestmark = pytest.mark.slow

WRITES = """
from plumbline.lake import spark, tables as lake
rows = spark.session(writer="features").range(0, 10**9).selectExpr("sha2(cast(id AS string), 256) AS hash")
rows.write.format("delta").mode("append").save(lake.uri("features.customers"))
"""


@pytest.fixture
def alone(home: Path) -> Iterator[Path]:
    """No session of an earlier test in this process, and none left to a later one."""
    from pyspark.sql import SparkSession

    def stop() -> None:
        if active := SparkSession.getActiveSession():
            active.release_session_on_close = False
            active.stop()
        os.environ.pop("SPARK_REMOTE", None)

    stop()
    yield home
    stop()


def test_a_server_that_was_killed_is_started_anew_for_the_same_process(alone: Path) -> None:
    assert spark.session().sql("SELECT 1 AS n").collect()[0].n == 1
    server = services.find("spark")
    assert server is not None
    os.killpg(server.pid, signal.SIGKILL)
    while services.find("spark") is not None:  # a process takes its time to die
        time.sleep(0.01)
    assert spark.session().sql("SELECT 2 AS n").collect()[0].n == 2
    again = services.find("spark")
    assert again is not None and again.pid != server.pid


def test_a_server_of_yours_that_is_not_there_is_an_error_within_seconds(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_REMOTE", f"sc://localhost:{services.free_port()}/;token=hush")
    begun = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="Spark Connect at sc://localhost:.* refused a session") as error:
        spark.session()
    assert time.monotonic() - begun < 60
    assert "hush" not in str(error.value)


def test_what_a_killed_writer_left_at_work_is_stopped_before_its_successor_works(alone: Path) -> None:
    spark.server_url()
    data = alone / "lake" / "features" / "customers"
    writer = subprocess.Popen([sys.executable, "-c", WRITES])
    while not any(data.glob("*.parquet")):
        assert writer.poll() is None
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    assert spark.session(writer="features").interruptAll() == [], "nothing is left to be stopped"
    assert not list(data.glob("_delta_log/*.json"))


def test_sessions_end_that_nobody_comes_back_for_and_a_writer_gets_another(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = "spark.connect.session.manager"
    monkeypatch.setitem(spark.CONF, f"{manager}.defaultSessionTimeout", "2s")
    monkeypatch.setitem(spark.CONF, f"{manager}.maintenanceInterval", "1s")
    first = spark.session(writer="features").session_id
    assert spark.session(writer="features").session_id == first, "while it is there it is the same"
    deadline = time.monotonic() + 60
    while (now := _left_for(6)) == first and time.monotonic() < deadline:
        pass
    assert now != first
    assert spark.session(writer="features").sql("SELECT 1 AS n").collect()[0].n == 1


def _left_for(seconds: float) -> str:
    """Goes away without a word, as a killed writer does; the session that its successor gets."""
    active = spark.session(writer="features")
    active.release_session_on_close = False
    active.stop()
    time.sleep(seconds)
    return str(spark.session(writer="features").session_id)
