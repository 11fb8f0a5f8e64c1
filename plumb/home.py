"""A home made before there were several products: what lay at a folder's root moves into the product's folder, once."""

from __future__ import annotations

from pathlib import Path

from plumbline.settings import settings
from products import ALL
from products.churn import CHURN

MOVED = ("training", "rollouts", "feast", "preview")
"""The folders that hold one folder a product now. All that was there before was churn's."""


def upgrade() -> None:
    """Moves what an older home has. Killed in the middle, it goes on next time."""
    ours = {product.name for product in ALL}
    for folder in (settings().home / name for name in MOVED):
        old = [found for found in folder.iterdir() if found.name not in ours] if folder.is_dir() else []
        for found in sorted(old):
            _move(found, folder / CHURN.name / found.name)


def _move(old: Path, new: Path) -> None:
    new.parent.mkdir(exist_ok=True)
    if not new.exists():
        old.rename(new)
