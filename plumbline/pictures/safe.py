"""Decoding in child processes that are bounded: a picture that hangs, crashes or fills memory costs itself alone.

The children live long, so a picture costs a round trip by pipe and no start. One that dies or takes too long is
replaced. The picture is tried once more in a new child before it is refused: the fault may have been an earlier one's.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from plumbline import clock, files
from plumbline.errors import PlumblineError
from plumbline.pictures import child, network
from plumbline.pictures.decode import LIMITS, BadPicture, Limits, Picture
from plumbline.settings import ROOT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WALL_FACTOR = 6
"""A picture may take so many times its CPU seconds on the wall: a busy machine must not quarantine a good one."""

TRIES = 2
WATCH_SECONDS = 0.1
MOST_CHILDREN = 8

PERHAPS_THE_CHILDS = ("timeout", "out_of_memory", "decoder_crashed")
"""Reasons that may come of an earlier picture: these are tried again."""


class DecoderError(PlumblineError):
    """No decoder can be started here; no picture is refused for that."""


@dataclass(frozen=True)
class Cleaned:
    """A clean picture: its PNG and that one's hash, size in pixels, perceptual hash (16 hex), the format it came in,
    and what was changed to get it (`notes`)."""

    png: bytes
    sha256: str
    width: int
    height: int
    phash: str
    format: str
    notes: tuple[str, ...]


class Decoders:
    """A pool of children, for any number of threads; each method takes one picture and waits for a free child.

    Use it in a `with`, or `close` it. Children start when they are first needed.
    """

    def __init__(self, limits: Limits = LIMITS, children: int | None = None) -> None:
        self.limits = limits
        self.size = children or min(network.threads(), MOST_CHILDREN)
        self._all = [_Child(limits) for _ in range(self.size)]
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()
        for one in self._all:
            self._free.put(one)
        self._closed = threading.Event()
        threading.Thread(target=self._end_late_ones, daemon=True, name="decoders").start()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the children."""
        self._closed.set()
        for one in self._all:
            one.end()

    def decoded(self, content: bytes, name: str | None = None) -> Picture:
        """As decode.decoded. Raises BadPicture."""
        import numpy as np

        told, pixels = self._ask("decode", content, name)
        rgb: NDArray[np.uint8] = np.frombuffer(pixels, np.uint8).reshape(told["height"], told["width"], 3)
        return Picture(rgb, told["format"], tuple(told["notes"]))

    def cleaned(self, content: bytes, name: str | None = None) -> Cleaned:
        """The picture as stage 02 keeps it. Raises BadPicture."""
        told, png = self._ask("clean", content, name)
        return Cleaned(
            png,
            files.sha256(png),
            told["width"],
            told["height"],
            told["phash"],
            told["format"],
            tuple(told["notes"]),
        )

    def exif(self, content: bytes) -> dict[str, str] | None:
        """The EXIF tags by name; None without any, and where no decoder can read them."""
        try:
            told, _ = self._ask("exif", content, None)
        except BadPicture:
            return None
        exif: dict[str, str] | None = told["exif"]
        return exif

    def _ask(self, work: str, content: bytes, name: str | None) -> tuple[dict[str, Any], bytes]:
        if len(content) > self.limits.bytes:  # not worth a way through the pipe
            raise BadPicture("too_many_bytes", f"{len(content):,} bytes; up to {self.limits.bytes:,}")
        one, tries = self._free.get(), TRIES
        try:
            while True:
                answer = one.ask({"work": work, "name": name}, content)
                bad = one.fault() if answer is None else _refusal(answer[0])
                if answer is not None and bad is None:
                    return answer
                tries -= 1
                if bad is not None and bad.reason not in PERHAPS_THE_CHILDS:
                    raise bad
                one.end()
                if bad is not None and not tries:
                    raise bad
        finally:
            self._free.put(one)

    def _end_late_ones(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            now = clock.monotonic()
            for one in self._all:
                one.end_if_late(now)


def _refusal(told: dict[str, Any]) -> BadPicture | None:
    return BadPicture(told["reason"], told["detail"]) if "reason" in told else None


class _Child:
    """One child process and the pipes to it and back; replaced whenever it has ended."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.process: subprocess.Popen[bytes] | None = None
        self.pipes: tuple[BinaryIO, BinaryIO] | None = None
        self.until: float | None = None
        self.late = False

    def ask(self, head: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes] | None:
        """The answer; None when the child ended without one."""
        to, back = self.pipes or self._start()
        self.late, self.until = False, clock.monotonic() + self.limits.seconds * WALL_FACTOR
        try:
            child.send(to, head, content)
            return child.receive(back)
        except (BrokenPipeError, ConnectionResetError):
            return None
        finally:
            self.until = None

    def fault(self) -> BadPicture:
        """Why the child ended without an answer."""
        code = self.process.wait() if self.process else 0
        if self.late or code == -signal.SIGXCPU:
            return BadPicture("timeout", f"more than {self.limits.seconds:g} s of CPU")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadPicture("decoder_crashed", f"the decoder ended with {how}")

    def end_if_late(self, now: float) -> None:
        """Ends the process when its picture takes too long."""
        until, process = self.until, self.process
        if until is not None and now > until and process is not None:
            self.late = True
            process.kill()

    def end(self) -> None:
        """Ends the process; the next picture starts another."""
        process, pipes = self.process, self.pipes
        self.process = self.pipes = None
        if process is not None:
            process.kill()
            process.wait()
        for stream in pipes or ():
            with suppress(BrokenPipeError):  # what was still to be sent
                stream.close()

    def _start(self) -> tuple[BinaryIO, BinaryIO]:
        libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        process = self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "plumbline.pictures.child", json.dumps(self.limits.as_dict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", **libraries},
        )
        pipes = self.pipes = (cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout))
        if child.receive(pipes[1]) is None:  # not the picture's fault: nothing was sent yet
            self.end()
            raise DecoderError(
                f"the decoder does not start: try `{sys.executable} -m plumbline.pictures.child '{{}}'`, it says why"
            )
        return pipes
