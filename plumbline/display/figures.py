"""How our plots look, as a file (MLflow's) and inside a page, where their colours follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Color:
    """A colour by its role: as drawn (on white) and on a dark page. No two roles share a light colour."""

    light: str
    dark: str


COLORS = {
    "ink": Color("#22272e", "#d7dde4"),
    "muted": Color("#6b7480", "#939eab"),
    "line": Color("#d8dde3", "#353c45"),
    "model": Color("#1b4965", "#6cb4dd"),
    "second": Color("#ca6702", "#f0a04b"),
    "third": Color("#8a8d91", "#a4a8ad"),
    "good": Color("#2a9d8f", "#4cc4b5"),
    "bad": Color("#bc4749", "#ef7b7d"),
}
"""Roles: text, quiet text, lines; the thing itself, what it is compared with, a third; good (kept), bad (churned)."""

INK, MUTED, LINE, MODEL, SECOND, THIRD, GOOD, BAD = (color.light for color in COLORS.values())


@contextmanager
def style() -> Iterator[Any]:
    """matplotlib's pyplot, without a display, in our look; figures made inside should be closed inside."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    look: Any = {
        "font.size": 10,
        "font.family": "sans-serif",
        "svg.fonttype": "none",  # text stays text: it takes the page's font and can be searched
        "svg.hashsalt": "plumbline",  # ids are the same in every run
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.grid": True,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "figure.dpi": 120,
    }
    with pyplot.rc_context(look):
        yield pyplot


def svg(figure: Figure, label: str) -> str:
    """The figure as an inline SVG element, transparent, as wide as its place, its colours the page's variables.

    `label` says in words what it shows, for who does not see it.
    """
    from html import escape

    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    tag, rest = text.split(">", 1)
    tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)  # as wide as its place
    for role, color in COLORS.items():
        rest = rest.replace(color.light, f"var(--{role}, {color.light})")
    return f'{tag} role="img" aria-label="{escape(label)}">{rest}'


def variables(dark: bool) -> str:
    """The colours as CSS variables, for a page's style sheet."""
    return " ".join(f"--{role}: {color.dark if dark else color.light};" for role, color in COLORS.items())
