"""uvicorn's HTTP connections with bounds: on a request's head, on the time that it takes to arrive, on their number.

uvicorn bounds none of these. What is refused here never reaches the application; it has the same body as every error.
"""

from __future__ import annotations

import json
import uuid
from asyncio import TimerHandle
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.errors import body

LARGEST_HEAD = 64 << 10
"""Bytes of one request's headers; a proxy adds some 2 KB."""

MOST_HEADERS = 100
ARRIVAL = 10.0
"""Seconds from a connection, or a request's first byte, to its last byte."""

LINGER = 2.0
"""Seconds that a refused connection is still read and ignored, so that its peer can read the answer."""

MOST = 512
"""Connections at once: half of the 1,024 files that a login shell may open."""


class BoundedConnection(HttpToolsProtocol):
    """One connection. The longest idle one makes room for a new one when there are too many."""

    entities = "requests"
    """Under which name a refusal's body has its reasons, none here: as in errors.body."""
    _refused = False
    _arrival: TimerHandle | None = None
    _unparsed = _headers = _head = 0
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Takes the connection, or refuses it with 503 when all others are at work."""
        crowded = len(self.connections) >= MOST
        super().connection_made(transport)
        self._since = self.loop.time()
        if crowded:
            idle = [c for c in self.connections if c is not self and isinstance(c, BoundedConnection) and c.is_idle]
            if not idle:
                self._refuse(503, f"{MOST} connections are at work: ask again")
                return
            min(idle, key=lambda connection: connection._since).transport.abort()
        self._expect_request()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered on it."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses bytes; those that end no header, nor anything else, for too long are a head that is too large."""
        if self._refused:
            return
        if self._arrival is None and not self.pipeline:
            self._expect_request()
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > LARGEST_HEAD and not self.transport.is_closing() and not self._refused:
            self._too_large()

    def on_message_begin(self) -> None:
        """Begins a request."""
        self._headers = self._head = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header or trailer, unless there are too many."""
        self._unparsed = 0
        self._headers += 1
        self._head += len(name) + len(value)
        if self._headers > MOST_HEADERS or self._head > LARGEST_HEAD:
            self._too_large()
            raise ValueError("too many headers")  # ends the parser's work on these bytes
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Starts the request."""
        self._unparsed = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the request."""
        self._unparsed = 0
        self._since = self.loop.time()
        self._arrived()
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        """Never: a WebSocket would leave with the connection, past every bound here. The request counts as plain."""
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: a line a request would fill the disk."""

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses, in the one shape of errors."""
        if not self._refused:
            self._refuse(400, "this is no HTTP request that can be read")

    def _too_large(self) -> None:
        self._refuse(431, f"expected at most {MOST_HEADERS} headers of {LARGEST_HEAD} bytes together")

    def _expect_request(self) -> None:
        self._arrival = self.loop.call_later(ARRIVAL, self._late)

    def _arrived(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _late(self) -> None:
        """Ends a connection whose request does not arrive. An application that waits for it is told of the end."""
        self._arrival = None
        if self.is_idle and self._unparsed:
            self._refuse(408, f"the request did not arrive within {ARRIVAL:.0f} s")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        self._refused = True
        self._arrived()
        request_id = str(uuid.uuid4())
        content = json.dumps(body(message, request_id, self.entities)).encode()
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(content)}",
            f"x-request-id: {request_id}",
            *(["retry-after: 1"] if status == 503 else []),
            "connection: close",
        ]
        self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + content)
        self.loop.call_later(LINGER, self.transport.close)
