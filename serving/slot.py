"""`plumb serve --slot`: a predictor in a container of a stack, which serves what its slot says.

Until the slot says something it answers 503. When the slot says something else, it answers what is under way and ends:
the container's restart policy starts it again, with the other model.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from plumbline.errors import PlumblineError
from plumbline.product import Product
from plumbline.progress import say, warn
from plumbline.settings import settings
from plumbline.state import slots
from plumbline.state.slots import CANARY, SIDES, STABLE, Side, Slot
from serving import server

__all__ = ["CANARY", "SIDES", "STABLE", "serve"]

EVERY = 1.0
"""Seconds from one look at the slot to the next."""

ALIVE = "/v2/health/live"
"""What is answered 200 whether there is a model or not: KServe's own path."""


def serve(product: Product, side: Side, host: str, port: int, grpc_port: int) -> None:
    """Serves the slot's model until SIGTERM, or until the slot says something else.

    Raises as `server.serve` does; Unreadable when the slot or a file that it names cannot be read.
    """
    slot = slots.read(product, side) or _awaited(product, side, host, port)
    with tempfile.TemporaryDirectory(prefix="plumbline-slot-") as place:
        folder = Path(place) / "model"
        folder.mkdir()
        slots.fetch(product, slot, folder)
        told = {"VERSION": slot.version, "RUN": slot.run, "DIGEST": slot.digest, "SIGNATURE": slot.signature}
        os.environ |= {f"PLUMBLINE_MODEL_{name}": value for name, value in told.items()}
        os.environ["PLUMBLINE_REVISION"] = slot.revision
        settings.cache_clear()
        with _watched(product, side, slot):
            server.serve(product, port, grpc_port, host=host, model_dir=folder, canary=side == CANARY)


def _awaited(product: Product, side: Side, host: str, port: int) -> Slot:
    """The slot, when it says something; until then callers are told that there is nothing yet."""

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            alive = self.path == ALIVE
            body: dict[str, object] = {"live": True} if alive else {"error": f"no {side} model of {product.name} yet"}
            content = json.dumps(body).encode()
            self.send_response(200 if alive else 503)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """No line a request."""

    say(f"no {side} model of {product.name} yet: waiting for {settings().models}")
    with ThreadingHTTPServer((host, port), Nothing) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        over, told = threading.Event(), ""
        try:
            while True:
                try:
                    if (slot := slots.read(product, side)) is not None:
                        return slot
                except PlumblineError as error:
                    if str(error) != told:
                        warn(told := str(error))
                over.wait(EVERY)
        finally:
            answering.shutdown()


@contextmanager
def _watched(product: Product, side: Side, slot: Slot) -> Iterator[None]:
    """Ends this process as SIGTERM does once the slot says something else. A slot that cannot be read says nothing."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            try:
                found = slots.read(product, side)
            except PlumblineError:
                continue
            if found is None or replace(found, signature=slot.signature) != slot:  # signed anew is no other model
                say(f"{side} is {'version ' + found.version if found else 'nothing'} from now on: ending")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
