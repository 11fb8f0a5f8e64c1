"""From bytes to pixels, or why not: the one decoder that cleaning and serving share.

It runs on bytes of unknown origin, so whoever calls it on such bytes does so in a child process (safe.py). What
comes out is always 8-bit RGB, upright, on white, and without any metadata.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from plumbline.errors import PlumblineError
from plumbline.pictures import formats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

REASONS = {
    "empty": "a file without bytes",
    "too_many_bytes": "a larger file than the limits allow",
    "not_an_image": "no picture by its first bytes",
    "unsupported_format": "a picture of a format that is not decoded",
    "wrong_extension": "its name says another format than its bytes",
    "truncated": "the end is missing",
    "trailing_data": "something else follows the picture in the same file",
    "broken": "the decoder refuses it",
    "zero_sized": "a side of no pixels",
    "too_small": "a side below the limit",
    "too_large": "a side above the limit",
    "too_many_pixels": "more pixels than the limits allow, by its header: a decompression bomb",
    "animated": "several frames or pages: which one the label means is unknown",
    "cmyk": "printing colours: without a trusted profile they have no one RGB",
    "sixteen_bit": "16 bits a sample: which part of the range is the picture is unknown",
    "unsupported_mode": "samples that have no one RGB (float, LAB, 32 bit)",
    "timeout": "decoding took longer than the limit",
    "out_of_memory": "decoding took more memory than the limit",
    "decoder_crashed": "the decoder ended on it",
    "duplicate": "the same pixels as an earlier picture",
}
"""Why a picture is set aside: a short code, and what it means."""

CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
ORIENTATION = 0x0112


class BadPicture(PlumblineError):
    """Bytes that are no picture one can use. `reason` is a key of REASONS, `detail` says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """What a picture may be and cost. Sides in pixels; `seconds` and `memory` (bytes) bound the child process.

    A pixel takes up to 12 bytes while it is decoded and converted, and an idle decoder takes 200 MB.
    """

    bytes: int = 64 * 2**20
    pixels: int = 40_000_000
    smallest_side: int = 16
    largest_side: int = 16_384
    seconds: float = 10.0
    memory: int = 2 * 2**30

    def as_dict(self) -> dict[str, int | float]:
        """The limits by name."""
        return asdict(self)


LIMITS = Limits()


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `rgb` is uint8 (height, width, 3). `format` is the bytes' own, `notes` what was changed."""

    rgb: NDArray[np.uint8]
    format: str
    notes: tuple[str, ...] = ()


def decoded(content: bytes, limits: Limits = LIMITS, name: str | None = None) -> Picture:
    """The picture in `content`; with its file's `name`, the name's ending must fit. Raises BadPicture.

    Call it on bytes of unknown origin by `safe.Decoders` only.
    """
    from PIL import Image, UnidentifiedImageError

    kind = _kind(content, limits, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                _check_header(image, content, kind, limits)
                image.load()
                return _normalised(image, kind)
    except BadPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BadPicture("too_many_pixels", str(error)) from None
    except MemoryError:
        raise BadPicture("out_of_memory", f"more than {limits.memory:,} bytes") from None
    except UnidentifiedImageError:
        raise BadPicture("broken", f"begins as {kind}, and the decoder does not know it") from None
    except Exception as error:  # a decoder raises anything on broken bytes
        said = " ".join(str(error).split())[:200]
        cut = "truncated" in said or "not enough" in said.lower()
        raise BadPicture("truncated" if cut else "broken", f"{kind}: {said or type(error).__name__}") from None


def _kind(content: bytes, limits: Limits, name: str | None) -> str:
    """The format, by all that can be known without decoding."""
    if not content:
        raise BadPicture("empty", "0 bytes")
    if len(content) > limits.bytes:
        raise BadPicture("too_many_bytes", f"{len(content):,} bytes; up to {limits.bytes:,}")
    kind = formats.of(content)
    if kind not in formats.EXTENSIONS:
        reason = "unsupported_format" if kind in PICTURES else "not_an_image"
        raise BadPicture(reason, f"{kind} by its first bytes {content[:8].hex(' ')}")
    ending = PurePosixPath(name or "").suffix.lower()
    if ending and ending not in formats.EXTENSIONS[kind]:
        raise BadPicture("wrong_extension", f"named {ending}, {kind} by its bytes")
    size = formats.declared_size(content, kind)
    if size is not None and 0 in size:
        raise BadPicture("zero_sized", f"{size[0]:,} x {size[1]:,} pixels by its header")
    end = formats.end_of(content, kind)
    if end is not None and end > len(content):
        raise BadPicture("truncated", f"{kind}: the end is missing behind {len(content):,} bytes")
    if end is not None and kind == "jpeg":
        end = formats.further_jpegs_end(content, end)
    rest = content[end:].lstrip(b"\0") if end is not None else b""
    if rest:
        raise BadPicture(
            "trailing_data", f"{len(rest):,} bytes behind the {kind}, {formats.of(rest)} by {rest[:8].hex(' ')}"
        )
    return kind


PICTURES = {"psd", "ico", "jpeg2000", "jpegxl", "avif", "heic", "svg"}


def _check_header(image: Image.Image, content: bytes, kind: str, limits: Limits) -> None:
    width, height = image.size
    size = f"{width:,} x {height:,} pixels"
    if width <= 0 or height <= 0:
        raise BadPicture("zero_sized", size)
    if width * height > limits.pixels:
        raise BadPicture("too_many_pixels", f"{size}; up to {limits.pixels:,} in all")
    if max(width, height) > limits.largest_side:
        raise BadPicture("too_large", f"{size}; up to {limits.largest_side:,} a side")
    if min(width, height) < limits.smallest_side:
        raise BadPicture("too_small", f"{size}; at least {limits.smallest_side} a side")
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise BadPicture("animated", f"{frames} frames")
    if image.mode == "CMYK":
        raise BadPicture("cmyk", f"{kind} in CMYK")
    if image.mode.startswith("I;16") or (kind == "png" and formats.png_depth(content) == 16) or _tiff_bits(image) == 16:
        raise BadPicture("sixteen_bit", f"{kind} in mode {image.mode} of 16 bits a sample")
    if image.mode not in CONVERTED:
        raise BadPicture("unsupported_mode", f"{kind} in mode {image.mode}")


def _tiff_bits(image: Image.Image) -> int:
    bits = getattr(image, "tag_v2", {}).get(258, (8,))
    return int(max(bits) if isinstance(bits, tuple) else bits)


def _normalised(image: Image.Image, kind: str) -> Picture:
    import numpy as np
    from PIL import Image

    notes = ["the first of several pictures"] if image.format == "MPO" else []
    upright = _upright(image)
    if upright is not image:
        notes.append("rotated by EXIF")
    if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info:
        clear = upright.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        notes.append("laid on white")
    else:
        flat = upright.convert("RGB")
    return Picture(np.ascontiguousarray(np.asarray(flat, dtype=np.uint8)), kind, tuple(notes))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; as it lies where EXIF cannot be read."""
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
        6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90,
    }  # fmt: skip
    try:
        method = turns.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing
        return image
    return image if method is None else image.transpose(method)


def exif_summary(content: bytes) -> dict[str, Any] | None:
    """The EXIF tags of a picture by name, as short texts; None without any. Never raises on broken bytes."""
    from PIL import ExifTags, Image

    kind = formats.of(content)
    if kind not in formats.EXTENSIONS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                tags = image.getexif()
                every = {**tags, **tags.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return None
    named = {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in every.items()}
    bulky = {"ExifOffset", "MakerNote", "UserComment", "GPSInfo"}
    summary = {name: str(value)[:100] for name, value in sorted(named.items()) if name not in bulky}
    if "GPSInfo" in named:
        summary["GPSInfo"] = "present"
    return summary or None


def clean_png(rgb: NDArray[np.uint8]) -> bytes:
    """A PNG of exactly these pixels and nothing else; the same bytes each time.

    Written here and not by an image library, whose output changes with its version. Each row is stored as its
    difference from the one above (PNG filter 2), compressed by zlib at level 6.
    """
    import numpy as np

    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError(f"expected uint8 (height, width, 3), found {rgb.dtype} {rgb.shape}")
    height, width, _ = rgb.shape
    flat = rgb.reshape(height, width * 3)
    rows = np.empty((height, width * 3 + 1), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = flat[0]
    rows[1:, 1:] = flat[1:] - flat[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
