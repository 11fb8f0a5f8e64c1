"""Files that are no good pictures, each with the reason that it is set aside for. All are made by code."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

SIDE = 40


def rgb(seed: int = 0, side: int = SIDE) -> Image.Image:
    """Coarse coloured noise: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, depth: int = 8, colours: int = 0, before: bytes = b"") -> bytes:
    """A PNG put together by hand: what its header says need not be what its pixels are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    """80 MB of text in 80 kB."""
    return chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(80_000_000), 9))


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("run.sh", "echo no")
    return file.getvalue()


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def _bmp(width: int, height: int) -> bytes:
    good = encoded(rgb(), "BMP")
    return good[:18] + struct.pack("<ii", width, height) + good[26:]


def _gif_size(width: int, height: int) -> bytes:
    good = encoded(rgb().convert("P"), "GIF")
    return good[:6] + struct.pack("<HH", width, height) + good[10:]


def _frames(kind: str) -> bytes:
    return encoded(rgb(1), kind, save_all=True, append_images=[rgb(2), rgb(3)])


def _cmyk(seed: int) -> Image.Image:
    return rgb(seed).convert("CMYK")


def _deep() -> Image.Image:
    return Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE))


def _deep_rgb() -> bytes:
    row = b"\0" + b"\x12\x34" * 3 * SIDE
    return png(SIDE, SIDE, row * SIDE, depth=16, colours=2)


def _truncated(kinds: tuple[str, ...]) -> Iterator[tuple[str, bytes, str]]:
    for kind in kinds:
        good = encoded(rgb(7), kind)
        for share in (0.5, 0.9):
            name = f"cut-{int(share * 100)}.{kind.lower()}"
            yield name, good[: int(len(good) * share)], "truncated"


def malformed() -> list[tuple[str, bytes, str]]:
    """Name, bytes and expected reason of each file; no two have the same bytes."""
    png_good, jpeg_good = encoded(rgb(10), "PNG"), encoded(rgb(11), "JPEG")
    gif_good, bmp_good = encoded(rgb(12).convert("P"), "GIF"), encoded(rgb(13), "BMP")
    webp_good, tiff_good = encoded(rgb(14), "WEBP"), encoded(rgb(15), "TIFF")
    good = {"png": png_good, "jpg": jpeg_good, "gif": gif_good, "webp": webp_good, "bmp": bmp_good}
    files: list[tuple[str, bytes, str]] = [
        ("nothing.png", b"", "empty"),
        ("text.png", b"this is a text and no picture\n", "not_an_image"),
        ("zeros.jpg", bytes(4096), "not_an_image"),
        ("noise.bin", np.random.default_rng(3).bytes(5000), "not_an_image"),
        ("page.png", b"<!DOCTYPE html><html><script>alert(1)</script></html>", "not_an_image"),
        ("archive.png", _zip(), "not_an_image"),
        ("paper.jpg", b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n", "not_an_image"),
        ("packed.png", b"\x1f\x8b\x08" + bytes(40), "not_an_image"),
        ("film.jpg", b"\x00\x00\x00\x18ftypisom" + bytes(60), "not_an_image"),
        ("one-byte.png", b"\x89", "not_an_image"),
        ("drawing.png", b"<svg><rect width='9' height='9'/></svg>", "unsupported_format"),
        ("layers.psd", b"8BPS\x00\x01" + bytes(60), "unsupported_format"),
        ("icon.ico", encoded(rgb(16), "ICO"), "unsupported_format"),
        ("phone.heic", b"\x00\x00\x00\x18ftypheic" + bytes(60), "unsupported_format"),
        ("new.avif", encoded(rgb(17), "AVIF"), "unsupported_format"),
        ("named.jpg", encoded(rgb(18), "PNG"), "wrong_extension"),
        ("named.png", encoded(rgb(19), "JPEG"), "wrong_extension"),
        ("named.gif", encoded(rgb(20), "BMP"), "wrong_extension"),
        ("named.txt", encoded(rgb(21), "PNG"), "wrong_extension"),
        ("named.php", encoded(rgb(22), "JPEG"), "wrong_extension"),
        ("signature-alone.png", b"\x89PNG\r\n\x1a\n", "truncated"),
        ("header-alone.png", png_good[:33], "truncated"),
        ("start-alone.jpg", b"\xff\xd8\xff", "truncated"),
        ("header-alone.gif", b"GIF89a" + struct.pack("<HH", 40, 40) + b"\x00\x00\x00", "truncated"),
        *_truncated(("PNG", "JPEG", "GIF", "BMP", "WEBP")),
        ("cut.tiff", tiff_good[: len(tiff_good) // 2], "truncated"),
        ("no-last-byte.jpg", jpeg_good[:-1], "truncated"),
        ("chunk-longer-than-file.png", png_good[:33] + b"\x7f\xff\xff\xff" + png_good[37:], "truncated"),
        *((f"and-zip.{kind}", content + _zip(), "trailing_data") for kind, content in good.items()),
        ("and-page.png", encoded(rgb(23), "PNG") + b"<html><script>alert(1)</script></html>", "trailing_data"),
        ("and-picture.jpg", encoded(rgb(24), "JPEG") + encoded(rgb(25), "JPEG"), "trailing_data"),
        ("and-code.gif", gif_good + b"#!/bin/sh\nrm -rf /\n", "trailing_data"),
        ("flipped-data.png", _flipped(png_good, 60), "broken"),
        ("flipped-header.png", _flipped(png_good, 20), "broken"),
        ("no-pixels.png", png(SIDE, SIDE, b""), "truncated"),
        ("too-few-pixels.png", png(SIDE, SIDE, bytes(SIDE)), "truncated"),
        ("no-such-filter.png", png(SIDE, SIDE, (b"\x09" + bytes(SIDE)) * SIDE), "broken"),
        ("no-such-colours.png", png(SIDE, SIDE, bytes(2000), colours=5), "broken"),
        ("not-compressed.png", png_good[:33] + chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b""), "broken"),
        ("no-tables.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9", "broken"),
        ("wide-nothing.png", png(0, SIDE, b"", colours=2), "zero_sized"),
        ("high-nothing.png", png(SIDE, 0, b"", colours=2), "zero_sized"),
        ("nothing.bmp", _bmp(0, 0), "zero_sized"),
        ("nothing.gif", _gif_size(0, 0), "zero_sized"),
        ("point.png", encoded(rgb(26, 1), "PNG"), "too_small"),
        ("line.png", encoded(Image.new("RGB", (400, 3)), "PNG"), "too_small"),
        ("ribbon.png", png(20_000, 20, (b"\0" + bytes(20_000)) * 20), "too_large"),
        ("bomb.png", png(60_000, 60_000, bytes(100_000), depth=1), "too_many_pixels"),
        ("bomb-by-header.png", png(2**31 - 1, 2**31 - 1, b""), "too_many_pixels"),
        ("bomb.gif", _gif_size(65_535, 65_535), "too_many_pixels"),
        ("bomb.bmp", _bmp(50_000, 50_000), "too_many_pixels"),
        ("just-too-many.png", png(8_000, 8_000, bytes(1000)), "too_many_pixels"),
        ("text-bomb.png", png(SIDE, SIDE, bytes(SIDE**2 + SIDE), before=_text_bomb()), "broken"),
        ("moving.gif", _frames("GIF"), "animated"),
        ("moving.png", _frames("PNG"), "animated"),
        ("moving.webp", _frames("WEBP"), "animated"),
        ("pages.tiff", _frames("TIFF"), "animated"),
        ("print.jpg", encoded(_cmyk(27), "JPEG"), "cmyk"),
        ("print.tiff", encoded(_cmyk(28), "TIFF"), "cmyk"),
        ("deep.png", encoded(_deep(), "PNG"), "sixteen_bit"),
        ("deep-colours.png", _deep_rgb(), "sixteen_bit"),
        ("deep.tiff", encoded(_deep(), "TIFF"), "sixteen_bit"),
        ("measured.tiff", encoded(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"), "unsupported_mode"),
        ("counted.tiff", encoded(Image.new("I", (SIDE, SIDE), 70_000), "TIFF"), "unsupported_mode"),
        ("measured-colours.tiff", encoded(rgb(29).convert("LAB"), "TIFF"), "unsupported_mode"),
    ]  # fmt: skip
    return files
