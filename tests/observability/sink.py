"""What Slack and PagerDuty are to the tests: a server on loopback that keeps the JSON it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sink:
    """Everything received so far: where it was sent, when (monotonic seconds), and what."""

    url: str = ""
    got: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)

    def first(
        self, path: str, wanted: Callable[[dict[str, Any]], bool], since: int = 0
    ) -> tuple[float, dict[str, Any]]:
        """The first message there, after the first `since`, that is wanted; waits 40 s for it."""
        until = time.monotonic() + 40
        while time.monotonic() < until:
            for where, at, told in self.got[since:]:
                if where == path and wanted(told):
                    return at, told
            time.sleep(0.05)
        raise AssertionError(f"nothing of the kind came to {path}; there came {self.got[since:]}")


def serve(sink: Sink) -> ThreadingHTTPServer:
    """Starts the server, on a free port; `sink.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sink.got.append((self.path, time.monotonic(), told))
            self.send_response(202 if "pagerduty" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sink.url = f"http://127.0.0.1:{server.server_port}"
    return server
