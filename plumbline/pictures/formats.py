"""What bytes are by their own first bytes, and where the picture in them ends."""

from __future__ import annotations

import struct

EXTENSIONS = {
    "png": (".png", ".apng"),
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "gif": (".gif",),
    "webp": (".webp",),
    "bmp": (".bmp", ".dib"),
    "tiff": (".tif", ".tiff"),
}
"""The formats that are decoded, each with the names' endings that fit it; the first is the one we write."""

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"8BPS", "psd"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x0a", "jpegxl"),
    (b"%PDF", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"<svg", "svg"),
    (b"<!DOCTYPE", "html"),
    (b"<html", "html"),
    (b"<?xml", "xml"),
)

UNKNOWN = "unknown"


def of(content: bytes) -> str:
    """The format's name by the first bytes, `unknown` for none that we know."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        brand = content[8:12].decode("ascii", "replace").strip()
        return {"avif": "avif", "avis": "avif", "heic": "heic", "heix": "heic", "mif1": "heic"}.get(brand, "mp4")
    start = content[:16].lstrip() if content[:1].isspace() else content
    return next((name for magic, name in SIGNATURES if start.startswith(magic)), UNKNOWN)


def end_of(content: bytes, kind: str) -> int | None:
    """How many bytes the picture takes, by its own structure. None where the format does not say (TIFF).

    More than there are bytes when the end is missing.
    """
    walks = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp, "bmp": _bmp}
    walk = walks.get(kind)
    try:
        return walk(content) if walk else None
    except (struct.error, IndexError):
        return len(content) + 1


def further_jpegs_end(content: bytes, end: int) -> int:
    """Where the last of the JPEGs ends that follow the first one, which ends at `end`, if it says that some do.

    Cameras put previews and depth there, and name them in a segment MPF of the first.
    """
    if b"MPF\0" not in content[: min(end, 2**18)]:
        return end
    while content.startswith(b"\xff\xd8\xff", end):
        further = end_of(content[end:], "jpeg") or 0
        if end + further > len(content):
            break
        end += further
    return end


def declared_size(content: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height by the header, where they lie at a fixed place; None elsewhere, and in too short a header."""
    places = {"png": (">II", 16), "gif": ("<HH", 6), "bmp": ("<ii", 18)}
    if kind not in places:
        return None
    try:
        layout, at = places[kind]
        width, height = struct.unpack_from(layout, content, at)
    except struct.error:
        return None
    return width, abs(height)


def png_depth(content: bytes) -> int:
    """Bits of each sample, by the header of a PNG."""
    return content[24] if len(content) > 24 else 0


def _png(content: bytes) -> int:
    at = 8
    while True:
        length: int
        length, kind = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if kind == b"IEND" or at > len(content):
            return at


def _jpeg(content: bytes) -> int:
    """Behind the end-of-image marker: segments are stepped over by their lengths, so that a preview in EXIF does not
    count as the end."""
    at = 2
    while True:
        while content[at] != 0xFF:  # the scan's own bytes
            at = content.find(b"\xff", at)
            if at < 0:
                return len(content) + 1
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if marker == 0xD9:
            return at
        if marker == 0x00 or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            if marker == 0x00 or 0xD0 <= marker <= 0xD7:
                at = _next_marker(content, at)
            continue
        at += struct.unpack_from(">H", content, at)[0]
        if marker == 0xDA:
            at = _next_marker(content, at)


def _next_marker(content: bytes, at: int) -> int:
    found = content.find(b"\xff", at)
    if found < 0:
        raise IndexError("no marker follows")
    return found


def _gif(content: bytes) -> int:
    at = 13 + _colours(content[10])
    while True:
        kind = content[at]
        at += 1
        if kind == 0x3B:
            return at
        if kind == 0x2C:
            at += 9 + _colours(content[at + 8]) + 1
        elif kind == 0x21:
            at += 1
        else:
            raise IndexError("no block begins so")
        while content[at]:
            at += content[at] + 1
        at += 1


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(content: bytes) -> int:
    size = int(struct.unpack_from("<I", content, 4)[0])
    return 8 + size + size % 2


def _bmp(content: bytes) -> int:
    return int(struct.unpack_from("<I", content, 2)[0])
