"""A real S3 server for tests: SeaweedFS on loopback, with credentials of its own, everything below one folder.

The root conftest imports the fixtures `s3_server` and `bucket_state`, and no other may: each import of a session's
fixture is a server of its own. The server keeps what state needs (`If-None-Match`, `If-Match`). What it does otherwise
than S3: a conditional CompleteMultipartUpload does not hold, a listing goes by folder (`a/c/d` before `a/c-d`), and
of several conditional writes to one key at once the losers wait a second or more.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from plumbline.settings import settings

HOST = "127.0.0.1"
BUCKET = "plumbline-tests"
SERVERS = ("master", "volume", "filer", "s3")
START_SECONDS = 60
NO_MLFLOW = {"PLUMBLINE_MLFLOW_URL": "http://127.0.0.1:9"}
"""State in a bucket asks for one; nobody listens there, and these tests do not train."""


@dataclass(frozen=True)
class S3Server:
    """A running server: its process, its AWS_… variables, and its bucket."""

    process: subprocess.Popen[bytes]
    env: dict[str, str]
    bucket: str

    @property
    def port(self) -> int:
        return int(self.env["AWS_ENDPOINT_URL"].rpartition(":")[2])

    def fresh_url(self) -> str:
        """s3://bucket/prefix where nobody has written."""
        return f"s3://{self.bucket}/{secrets.token_hex(4)}"


def start(folder: Path) -> S3Server:
    """Starts a server whose data, log and sockets are in `folder`, and makes its bucket; returns when it answers."""
    key, secret = secrets.token_hex(8), secrets.token_urlsafe(24)
    credentials = {"credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    config = folder / "s3.json"
    config.touch(0o600)
    config.write_text(json.dumps({"identities": [{"name": "tests", **credentials}]}))
    (folder / "data").mkdir()
    ports = _free_ports([f"{name}.port{grpc}" for name in SERVERS for grpc in ("", ".grpc")])
    options = {
        **ports,
        "dir": folder / "data",
        "ip": HOST,
        "ip.bind": HOST,
        "filer": "true",
        "filer.localSocket": folder / "filer.sock",
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 32,
        "volume.preStopSeconds": 0,
        "s3": "true",
        "s3.config": config,
        "s3.autoCreateBucket": "false",
        "s3.localSocket": folder / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    weed = Path(sys.prefix) / "bin" / "weed"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    endpoint = f"http://{HOST}:{ports['s3.port']}"
    env = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    }
    server = S3Server(process, env, BUCKET)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(f"{endpoint}/healthz"):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(server)
            raise RuntimeError(f"SeaweedFS did not start:\n{(folder / 'log').read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
    try:
        _make_bucket(server)
    except BaseException:
        stop(server)
        raise
    return server


def stop(server: S3Server) -> None:
    """Kills the server, whose data nobody wants (ending it cleanly takes 15 s), and the sockets it leaves in /tmp."""
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    ports = [argument.rpartition("=")[2] for argument in map(str, server.process.args) if ".port.grpc=" in argument]
    for name, port in zip(SERVERS, ports, strict=True):
        Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The one S3 server of the whole test run, started when it is first asked for."""
    folder = tmp_path_factory.mktemp("s3")
    server = start(folder)
    yield server
    stop(server)
    shutil.rmtree(folder / "data")


@pytest.fixture
def bucket_state(s3_server: S3Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """State of this test's home is in the bucket, below a prefix of its own: its s3://… URL."""
    url = s3_server.fresh_url()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**s3_server.env, "PLUMBLINE_STATE": url, **NO_MLFLOW}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    return url


def _make_bucket(server: S3Server) -> None:
    import obstore
    from obstore.store import S3Store

    store = S3Store(server.bucket, client_options={"allow_http": True}, **{k.lower(): v for k, v in server.env.items()})
    url = obstore.sign(store, "PUT", "", timedelta(seconds=60))  # the library makes no buckets, but signs the request
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=20) as response:  # noqa: S310
        assert response.status == 200
    obstore.put(store, "first", b"1")  # the first object takes the server 5 s


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return True
    except OSError:
        return False


def _free_ports(names: list[str]) -> dict[str, int]:
    """A loopback port that nobody listens on for each name, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in names]
        for probe in probes:
            probe.bind((HOST, 0))
        return {name: int(probe.getsockname()[1]) for name, probe in zip(names, probes, strict=True)}
