"""Delta tables in a real S3 server: Spark and delta-rs on one table, and what is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from plumbline import s3
from plumbline.causes import explained
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.pipeline import retention
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import releases
from plumbline.state.releases import Release
from products.churn import CHURN
from tests.conftest import inherited
from tests.object_store import S3Server

TABLE = "features.customers"
APPENDS = 5

SPARK_APPENDS = f"""
from plumbline.lake import spark
from plumbline.lake import tables as lake
session = spark.session(writer="second")
print("ready", flush=True)
input()
for n in range({APPENDS}):
    rows = session.createDataFrame([("spark-2", n)], "writer STRING, n BIGINT")
    rows.write.format("delta").mode("append").save(lake.uri("{TABLE}"))
session.stop()
"""
"""Another Spark driver: it runs in its own process, with a JVM of its own."""


def append(writer: str, n: int) -> None:
    rows = pa.table({"writer": [writer], "n": [n]})
    write_deltalake(lake.uri(TABLE), rows, mode="append", storage_options=lake.storage_options())


def rows(version: int | None = None) -> list[tuple[str, int]]:
    return sorted((row["writer"], row["n"]) for row in lake.open_table(TABLE, version).to_pyarrow_table().to_pylist())


@pytest.mark.slow
def test_spark_and_delta_rs_read_what_the_other_wrote_at_each_version(lake_in_s3: str) -> None:
    assert lake.version(TABLE) is None
    append("delta-rs", 0)
    session = spark.session()
    session.sql(f"INSERT INTO delta.`{lake.uri(TABLE)}` VALUES ('spark', 1)")
    session.sql(
        f"MERGE INTO delta.`{lake.uri(TABLE)}` t USING (SELECT 'spark' AS writer, 2L AS n) s ON t.writer = s.writer "
        "WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT *"
    )
    append("delta-rs", 3)
    assert [rows(version) for version in range(4)] == [
        [("delta-rs", 0)],
        [("delta-rs", 0), ("spark", 1)],
        [("delta-rs", 0), ("spark", 2)],
        [("delta-rs", 0), ("delta-rs", 3), ("spark", 2)],
    ]
    read = [session.sql(f"SELECT writer, n FROM {lake.at(TABLE, version)}").collect() for version in range(4)]
    assert [sorted((row.writer, row.n) for row in found) for found in read] == [rows(version) for version in range(4)]
    assert lake.restore(session, {TABLE: 1}) == [TABLE] and rows() == rows(1)
    assert lake.restore(session, {TABLE: 1}) == []
    lake.register(session, [TABLE])
    assert session.table(TABLE).count() == 2


@pytest.mark.slow
def test_three_writers_at_once_lose_no_commit(lake_in_s3: str) -> None:
    append("first", 0)
    session = spark.session()
    command, environment = [sys.executable, "-c", SPARK_APPENDS], {**inherited(), "PLUMBLINE_SPARK_IN_PROCESS": "true"}
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second,
    ):
        assert second.stdin and second.stdout
        assert any(line == "ready\n" for line in second.stdout)
        second.stdin.write("go\n")
        second.stdin.close()
        delta_rs = pool.submit(lambda: [append("delta-rs", n) for n in range(APPENDS)])
        for n in range(APPENDS):
            added = session.createDataFrame([("spark-1", n)], "writer STRING, n BIGINT")
            added.write.format("delta").mode("append").save(lake.uri(TABLE))
        delta_rs.result()
    assert second.returncode == 0
    writers = ("spark-1", "spark-2", "delta-rs")
    assert rows() == sorted([("first", 0), *((writer, n) for writer in writers for n in range(APPENDS))])
    assert lake.version(TABLE) == len(writers) * APPENDS


def test_a_vacuum_deletes_what_no_release_names_and_tells_its_bytes(lake_in_s3: str) -> None:
    def write(value: int) -> None:
        table = pa.table({"customer_id": [1, 2], "value": [value] * 2})
        write_deltalake(lake.uri(TABLE), table, mode="overwrite", storage_options=lake.storage_options())

    for value in range(3):
        write(value)
    releases.publish(Release(1, "churn", date(1998, 6, 1), None, {TABLE: 0}, {}, "c", "l", "t", "now"))
    dry = retention.vacuum(CHURN, 0, dry_run=True)
    assert retention.vacuum(CHURN, 0) == dry
    assert [(item.table, item.files) for item in dry] == [(TABLE, 1)] and dry[0].bytes > 100
    assert lake.open_table(TABLE, 0).to_pyarrow_table()["value"].to_pylist() == [0, 0]
    with pytest.raises(OSError, match="not found"):
        lake.open_table(TABLE, 1).to_pyarrow_table()


@pytest.mark.slow
def test_no_key_is_in_an_argument_a_record_or_a_log(lake_in_s3: str, s3_server: S3Server) -> None:
    spark.session().sql(f"SELECT 1 FROM {s3_listing(lake_in_s3)}").collect()
    server = services.find("spark")
    assert server is not None
    arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert s3.LOG_STORE in arguments
    secret = s3_server.env["AWS_SECRET_ACCESS_KEY"]
    written = [path for path in settings().home.rglob("*") if path.suffix in (".log", ".json") and path.is_file()]
    assert len(written) >= 2
    for text in (arguments, *(path.read_text(errors="replace") for path in written)):
        assert secret not in text


def s3_listing(url: str) -> str:
    """Something for Spark to read there."""
    append("anybody", 0)
    assert url in lake.uri(TABLE)
    return f"delta.`{lake.uri(TABLE)}`"


def test_spark_does_not_start_without_the_log_store(
    lake_in_s3: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = settings().cache / "jars"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "jars").symlink_to(jars)
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    with pytest.raises(ServiceUnavailable, match=r"log-store-.* is missing, without which Delta loses commits: .*make"):
        spark.session()
    assert services.find("spark") is None


@pytest.mark.slow
def test_a_spark_server_of_yours_without_the_log_store_is_refused(spark_address: str, lake_in_s3: str) -> None:
    command = [sys.executable, "-c", "from plumbline.lake import spark; spark.session()"]
    environment = {**inherited(), "SPARK_REMOTE": spark_address}  # a process of its own: this one has a session
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert f"SPARK_REMOTE has no {s3.LOG_STORE_CONF}={s3.LOG_STORE}: with Delta's own log store it loses" in said


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "not-the-one", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("PLUMBLINE_LAKE", "s3://no-such-bucket/lake", "NoSuchBucket"),
    ],
)
def test_what_the_server_refuses_is_one_sentence(
    lake_in_s3: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: str
) -> None:
    monkeypatch.setenv(variable, value)
    settings.cache_clear()
    for ask in (lake.version, lake.open_table):
        with pytest.raises(ServiceUnavailable, match=f"^S3 at http://127.0.0.1:[0-9]+ refuses: {code}; ") as error:
            ask(TABLE)
        assert "not-the-one" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(Exception, match=code) as written:
        append("anybody", 0)
    known = explained(written.value)
    assert isinstance(known, ServiceUnavailable) and f"refuses: {code}; " in str(known)


def test_a_server_that_is_gone_is_one_sentence_within_seconds(lake_in_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{services.free_port()}")
    with pytest.raises(
        ServiceUnavailable, match=r"^S3 at http://127.0.0.1:[0-9]+ \(AWS_ENDPOINT_URL\) does not answer"
    ):
        lake.version(TABLE)


def test_without_keys_nothing_is_asked(lake_in_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError, match=f"{lake_in_s3} is in S3: set AWS_SECRET_ACCESS_KEY in the environment"):
        lake.version(TABLE)
