"""From a picture's pixels to what the network reads; each version is a rule that never changes.

Cleaning's PNG in stage 03 and the decoded picture of a request go through the same function, so both give the same
embedding, bit for bit. A better rule is a new version beside these: embeddings name the version that made them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline.errors import PlumblineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEAN, SCALE = 127, 128
"""The network was trained on (pixel - 127) / 128; both steps are exact in 32 bits."""


class PreprocessError(PlumblineError):
    """There is no such version, or the pixels are none."""


@dataclass(frozen=True)
class Version:
    """How a picture becomes a square of `size` pixels: all of it, resized by Pillow's `resample`, its shape kept, and
    grey around it, which is 0 to the network."""

    size: int
    resample: str


VERSIONS = {"v1": Version(224, "BILINEAR"), "v2": Version(128, "BILINEAR")}
"""v1 is the network's own size. v2 takes a third of the time: MNIST's digits lose 2 points of accuracy by it
(PIPELINE_GUIDE.md, 03)."""


def version(name: str) -> Version:
    """The rule of that name. Raises PreprocessError."""
    if name not in VERSIONS:
        raise PreprocessError(f"no preprocessing {name!r}: there are {', '.join(VERSIONS)}")
    return VERSIONS[name]


def preprocess(rgb: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Pixels (height, width, 3) as the network reads them, (3, size, size). Raises PreprocessError."""
    import numpy as np
    from PIL import Image

    rule = version(name)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise PreprocessError(f"expected pixels (height, width, 3) of 8 bits, got {rgb.shape} of {rgb.dtype}")
    height, width, _ = rgb.shape
    longest = max(height, width)
    inner_width, inner_height = (max(1, round(side * rule.size / longest)) for side in (width, height))
    picture: Any = Image.fromarray(rgb).resize((inner_width, inner_height), Image.Resampling[rule.resample])
    left, top = (rule.size - inner_width) // 2, (rule.size - inner_height) // 2
    prepared = np.zeros((3, rule.size, rule.size), np.float32)
    inner = prepared[:, top : top + inner_height, left : left + inner_width]
    for band, values in zip(picture.split(), inner, strict=True):
        np.subtract(band, MEAN, out=values, dtype=np.float32)
    prepared /= SCALE
    return prepared


def pixels(png: bytes) -> NDArray[np.uint8]:
    """The pixels (height, width, 3) of a PNG that cleaning made. Raises PreprocessError for anything else."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if picture.mode != "RGB":
                raise PreprocessError(f"expected a clean PNG, RGB of 8 bits, found {picture.mode}")
            return np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PreprocessError(f"expected a clean PNG: {error}") from None
