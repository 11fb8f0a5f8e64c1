"""The decoder's process: reads pictures from standard input, one after the other, and answers on standard output.

Started by safe.py alone. It limits itself before it reads the first byte: memory, the CPU time of each picture, no
core dump, no byte written to any file. A frame is a length (4 bytes, big endian), that many bytes of a JSON object,
and as many bytes of content as the object's `size` says.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from plumbline.pictures import decode, perceptual
from plumbline.pictures.decode import BadPicture, Limits
from plumbline.pictures.formats import EXTENSIONS

Answer = tuple[dict[str, Any], bytes]


def send(stream: BinaryIO, head: dict[str, Any], content: bytes) -> None:
    """Writes one frame."""
    told = json.dumps({**head, "size": len(content)}).encode()
    stream.write(struct.pack(">I", len(told)) + told)
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """One frame; None where the stream ends."""
    length = stream.read(4)
    if len(length) < 4:
        return None
    told = stream.read(struct.unpack(">I", length)[0])
    try:
        head: dict[str, Any] = json.loads(told)
    except ValueError:  # the other side was killed in mid-frame
        return None
    content = stream.read(head["size"])
    return (head, content) if len(content) == head["size"] else None


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    limits = Limits(**json.loads(sys.argv[1]))
    _warm_up()
    _lower(resource.RLIMIT_AS, limits.memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    send(answers, {"ready": True}, b"")
    while (frame := receive(sys.stdin.buffer)) is not None:
        head, content = frame
        _allow_cpu(limits.seconds)
        try:
            told, result = WORK[head["work"]](content, limits, head.get("name"))
        except BadPicture as bad:
            told, result = {"reason": bad.reason, "detail": bad.detail}, b""
        except MemoryError:
            told, result = {"reason": "out_of_memory", "detail": f"more than {limits.memory:,} bytes"}, b""
        send(answers, told, result)


def _warm_up() -> None:
    """Loads all that decoding needs, before the limits count."""
    import numpy as np
    from PIL import Image

    Image.preinit()
    for kind in EXTENSIONS:
        if kind.upper() not in Image.OPEN:
            Image.init()
    perceptual.phash(np.zeros((16, 16, 3), np.uint8))


def _allow_cpu(seconds: float) -> None:
    """The kernel ends this process when the next picture takes longer, even if nobody waits for it any more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)


def _lower(limit: int, soft: int) -> None:
    """Sets a soft limit, not above what the machine allows."""
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _decoded(content: bytes, limits: Limits, name: str | None) -> Answer:
    picture = decode.decoded(content, limits, name)
    height, width, _ = picture.rgb.shape
    return {
        "format": picture.format,
        "notes": picture.notes,
        "height": height,
        "width": width,
    }, picture.rgb.tobytes()


def _cleaned(content: bytes, limits: Limits, name: str | None) -> Answer:
    picture = decode.decoded(content, limits, name)
    height, width, _ = picture.rgb.shape
    told = {
        "format": picture.format,
        "notes": picture.notes,
        "height": height,
        "width": width,
        "phash": perceptual.phash(picture.rgb),
    }
    return told, decode.clean_png(picture.rgb)


def _exif(content: bytes, limits: Limits, name: str | None) -> Answer:
    return {"exif": decode.exif_summary(content)}, b""


WORK: dict[str, Callable[[bytes, Limits, str | None], Answer]] = {
    "decode": _decoded,
    "clean": _cleaned,
    "exif": _exif,
}

if __name__ == "__main__":
    main()
