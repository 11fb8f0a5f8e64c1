"""What only a bucket can do wrong: lose an answer, refuse its client, be away."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.settings import settings
from plumbline.state import objects, s3
from plumbline.state.objects import StateError
from tests.object_store import HOST, S3Server

KEY = "releases/churn/000001.json"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server; `faults` says what happens to the answer of each next PUT."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__((HOST, 0), _Handler)
        self.upstream = upstream
        self.faults: list[str] = []
        self.puts = self.requests = 0
        self.meanwhile: Callable[[], Any] = lambda: None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = None
        self.server.requests += 1
        if self.command == "PUT":
            self.server.puts += 1
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "busy":
            return self._answer(503, b"<Error><Code>SlowDown</Code></Error>", {})
        upstream = http.client.HTTPConnection(HOST, self.server.upstream)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body)
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        if fault in ("lost", "lost, then overtaken"):
            if fault != "lost":
                self.server.meanwhile()
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        return self._answer(response.status, content, dict(response.getheaders()))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = _pass_on

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def proxy(bucket_state: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """State goes through a proxy that can fail."""
    with Proxy(s3_server.port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{server.server_address[1]}")
        yield server
        server.shutdown()
        thread.join()


def _text(key: str = KEY) -> str:
    found = objects.read(key)
    assert found is not None
    return found.text


@pytest.mark.parametrize("faults", [["lost"], ["lost", "lost"], ["busy"], ["busy", "lost"], ["lost", "busy"]])
def test_a_created_object_whose_answer_was_lost_is_created(proxy: Proxy, faults: list[str]) -> None:
    proxy.faults = list(faults)
    etag = objects.create(KEY, "mine")
    assert proxy.puts == len(faults) + 1
    assert (_text(), objects.read(KEY).etag) == ("mine", etag)  # type: ignore[union-attr]


def test_another_s_object_is_not_taken_for_ours_after_a_lost_answer(proxy: Proxy) -> None:
    objects.create(KEY, "another's")
    proxy.faults = ["lost"]
    with pytest.raises(objects.Exists):
        objects.create(KEY, "mine")
    assert _text() == "another's"


def test_a_replacement_whose_answer_was_lost_is_made_once(proxy: Proxy) -> None:
    etag = objects.create(KEY, "1")
    proxy.faults = ["lost"]
    etag = objects.replace(KEY, "2", if_match=etag)
    assert objects.replace(KEY, "3", if_match=etag) and _text() == "3"


def test_a_replacement_that_another_one_followed_says_changed(proxy: Proxy) -> None:
    etag = objects.create(KEY, "1")
    proxy.faults, proxy.meanwhile = ["lost, then overtaken"], lambda: objects.replace(KEY, "another's")
    with pytest.raises(objects.Changed):
        objects.replace(KEY, "2", if_match=etag)
    assert _text() == "another's"


def test_a_server_that_stays_busy_is_told_within_seconds(proxy: Proxy) -> None:
    proxy.faults = ["busy"] * 20
    begun = time.monotonic()
    with pytest.raises(ServiceUnavailable) as error:
        objects.create(KEY, "mine")
    assert proxy.puts == s3.ATTEMPTS and time.monotonic() - begun < 15
    assert "503" in str(error.value) and f"it is not known whether {objects.where(KEY)} was written" in str(error.value)


def test_a_server_that_is_away_is_told_within_seconds(bucket_state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind((HOST, 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{taken.getsockname()[1]}")
        begun = time.monotonic()
        for call in (lambda: objects.read(KEY), lambda: objects.create(KEY, ""), lambda: objects.keys("releases")):
            with pytest.raises(
                ServiceUnavailable, match=rf"^{bucket_state} at http://.* does not answer, asked \d times"
            ):
                call()
        assert time.monotonic() - begun < 30


def test_a_server_that_never_answers_is_told(bucket_state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 1)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{silent.getsockname()[1]}")
        with pytest.raises(ServiceUnavailable, match="does not answer, asked 2 times"):
            objects.read(KEY)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", r"does not grant access \(SignatureDoesNotMatch\): check AWS_ACCESS_KEY_ID"),
        ("AWS_ACCESS_KEY_ID", "nobody", r"does not grant access \(InvalidAccessKeyId\)"),
        ("PLUMBLINE_STATE", "s3://no-such-bucket/a", "has no such bucket: create it, or correct its setting"),
    ],
)
def test_what_the_server_refuses_is_one_message_at_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    for call in (lambda: objects.read(KEY), lambda: objects.create(KEY, ""), lambda: objects.keys("releases")):
        with pytest.raises(StateError, match=expected) as error:
            call()
        assert "\n" not in str(error.value) and "wrong" not in str(error.value)
    assert proxy.requests == 3, "what is refused is not asked for again"


def test_without_keys_the_variables_are_named(bucket_state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{HOST}:1")  # where a machine's role would be asked for
    with pytest.raises(StateError, match=r"\(AWS_ACCESS_KEY_ID is not set, and nothing else gave keys\): check AWS_AC"):
        objects.read(KEY)


def test_plain_http_is_for_loopback_unless_allowed(bucket_state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL=http://s3.example.org: expected https://"):
        objects.read(KEY)
