"""What a picture looks like in 64 bits: pictures that look alike have hashes of few differing bits.

pHash, as the library imagehash computes it: 32 x 32 grays, the 8 x 8 lowest frequencies of their cosine transform, a
bit each for above or below the median. Here the transform is in whole numbers, so that every machine and library
version gives the same bits; the library's float transform takes four times as long and needs scipy in each decoder.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE, LOWEST = 32, 8
SCALE = 1 << 14
"""The cosines' fixed point. A coefficient stays below 2**8 * 2**14 * 2**14 * 32**2 = 2**46."""

THUMBNAIL = 16


def phash(rgb: NDArray[np.uint8]) -> str:
    """64 bits as 16 hex digits, of uint8 (height, width, 3)."""
    import numpy as np
    from PIL import Image

    gray = Image.fromarray(rgb).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    cosines = _cosines()
    low = cosines @ np.asarray(gray, dtype=np.int64) @ cosines.T
    ordered = np.sort(low, axis=None)
    bits = 2 * low > ordered[31] + ordered[32]  # above the median, without dividing
    return np.packbits(bits).tobytes().hex()


def thumbnail(rgb: NDArray[np.uint8]) -> bytes:
    """16 x 16 RGB, row by row: what two pictures with close hashes are compared by."""
    from PIL import Image

    return Image.fromarray(rgb).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


@cache
def _cosines() -> NDArray[np.int64]:
    import numpy as np

    place, frequency = np.arange(SIDE), np.arange(LOWEST)[:, None]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))
    table: NDArray[np.int64] = np.rint(SCALE * waves).astype(np.int64)
    return table
