"""A lake in S3 without keys: delta-rs and Spark get them from a pod's workload identity, as EKS' agent gives."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from plumbline import s3
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.servers.services import HOST

TABLE = "features.customers"
TOKEN = "of-this-pod"


@pytest.fixture
def asked(lake_in_s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The tokens that whoever asked for keys showed; this process has none of its own."""
    keys = {"AccessKeyId": os.environ[s3.KEYS[0]], "SecretAccessKey": os.environ[s3.KEYS[1]]}
    body = json.dumps({**keys, "Token": "", "Expiration": "2099-01-01T00:00:00Z"}).encode()
    found: list[str] = []

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append(self.headers.get("authorization", ""))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text(TOKEN)
    for name in s3.KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{HOST}:{server.server_port}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    yield found
    server.shutdown()
    server.server_close()


def test_delta_rs_and_spark_read_what_the_other_wrote(asked: list[str]) -> None:
    rows = pa.table({"writer": ["delta-rs"], "n": [0]})
    write_deltalake(lake.uri(TABLE), rows, mode="append", storage_options=lake.storage_options())
    assert set(asked) == {TOKEN}
    before = len(asked)
    session = spark.session()
    session.sql(f"INSERT INTO delta.`{lake.uri(TABLE)}` VALUES ('spark', 1)")
    assert len(asked) > before and set(asked) == {TOKEN}
    found = lake.open_table(TABLE, None).to_pyarrow_table().to_pylist()
    assert sorted((row["writer"], row["n"]) for row in found) == [("delta-rs", 0), ("spark", 1)]
