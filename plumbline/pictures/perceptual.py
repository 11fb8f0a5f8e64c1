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

EDGE_MOST = 60
"""A step of so many levels is an edge as good as any: the colour of what is beside it does not count."""


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


def signature(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What two pictures with close hashes are compared by: 32 x 32 grays and 31 x 31 edges, both flat.

    An edge is the strongest step of any colour, so that the same drawing in other colours has the same edges.
    """
    import numpy as np
    from PIL import Image

    small = Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    levels = np.asarray(small, dtype=np.int32)
    across, down = np.diff(levels, axis=1)[:-1], np.diff(levels, axis=0)[:, :-1]
    steps = np.minimum(np.sqrt((across**2 + down**2).max(axis=2)), EDGE_MOST).astype(np.int32)
    padded = np.pad(steps, 1)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) // 4  # at most 4 * EDGE_MOST = 240
    return np.asarray(small.convert("L")).ravel(), soft.astype(np.uint8).ravel()


@cache
def _cosines() -> NDArray[np.int64]:
    import numpy as np

    place, frequency = np.arange(SIDE), np.arange(LOWEST)[:, None]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))
    table: NDArray[np.int64] = np.rint(SCALE * waves).astype(np.int64)
    return table
