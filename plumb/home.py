"""A home made before there were several products: what lay at a folder's root moves into the product's folder, once."""

from __future__ import annotations

from pathlib import Path

from plumbline.settings import settings
from products.churn import CHURN

MARK = "layout"
LAYOUT = "2"
MOVED = ("training", "rollouts", "feast", "preview")
"""The folders that hold one folder a product now."""


def upgrade() -> None:
    """Moves what an older home has; a home of this layout is left alone. Killed in the middle, it goes on next time."""
    home = settings().home
    mark = home / MARK
    if not home.exists() or (mark.exists() and mark.read_text() == LAYOUT):
        return
    for name in MOVED:
        for found in sorted((home / name).glob("*")) if (home / name).is_dir() else []:
            if found.name != CHURN.name:
                _move(found, home / name / CHURN.name / found.name)
    mark.write_text(LAYOUT)


def _move(old: Path, new: Path) -> None:
    new.parent.mkdir(exist_ok=True)
    if not new.exists():
        old.rename(new)
