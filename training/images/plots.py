"""What a run of the image classifier shows: who is taken for whom, and the pictures that it gets wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.display import figures
from plumbline.display.figures import MUTED
from plumbline.state import objects

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMNS, MOST = 6, 24
"""Pictures in a row, and on the page."""

LONGEST = 24
"""Characters of a label that a figure has room for."""


@dataclass(frozen=True)
class Mistake:
    """A test image that the model gets wrong: `uri` is its cleaned picture, `share` the probability of what it said."""

    uri: str | None
    label: str
    said: str
    share: float


def draw(folder: Path, counts: NDArray[Any], classes: Sequence[str], mistakes: Sequence[Mistake], title: str) -> None:
    """Writes confusion.png and misclassified.png into `folder`. A picture that cannot be read is a grey field."""
    folder.mkdir(parents=True, exist_ok=True)
    with figures.style() as plt, plt.rc_context({"text.parse_math": False}):  # a $ in a label is a $
        side = max(4.0, 0.45 * len(classes) + 2.2)
        figure, axes = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
        _confusion(axes, counts, classes)
        _save(plt, figure, folder / "confusion.png", title)
        shown = mistakes[:MOST]
        rows = max(1, -(-len(shown) // COLUMNS))
        figure, grid = plt.subplots(rows, COLUMNS, figsize=(1.45 * COLUMNS, 1.75 * rows + 0.6), layout="constrained")
        figure.suptitle(f"{len(shown)} of {len(mistakes)} mistakes, the most certain first" if shown else "no mistake")
        for at, axis in enumerate(grid.ravel()):
            axis.axis("off")
            if at < len(shown):
                _picture(axis, shown[at])
        _save(plt, figure, folder / "misclassified.png", title)


def _confusion(axes: Any, counts: NDArray[Any], classes: Sequence[str]) -> None:
    import numpy as np

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set(xlabel="the model says", ylabel="it shows", title="Test images, by row")
    names = [_short(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=color)


def _short(label: str) -> str:
    """A label as a figure has room and letters for it: one that its font lacks stands there by its number."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    told = "".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):x}" for c in label)
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 1]}…"


def _picture(axes: Any, mistake: Mistake) -> None:
    import numpy as np

    axes.imshow(picture(mistake.uri) if mistake.uri else np.full((8, 8, 3), 210, dtype=np.uint8))
    axes.set_title(f"{_short(mistake.label)}\n→ {_short(mistake.said)} {mistake.share:.2f}", fontsize=6)


def picture(uri: str) -> NDArray[Any]:
    """The cleaned picture at a path or URL, (h, w, 3); a grey field where it is gone or is none."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    stored = objects.read_at(uri)
    try:
        if stored is not None:
            return np.asarray(Image.open(io.BytesIO(stored.content)).convert("RGB"))
    except (UnidentifiedImageError, OSError):
        pass
    return np.full((8, 8, 3), 210, dtype=np.uint8)


def _save(plt: Any, figure: Figure, path: Path, title: str) -> None:
    figure.supxlabel(title, x=0.995, ha="right", fontsize=6.5, color=MUTED)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
