"""What a command sees to in its home first: that others cannot look into it, and that an older home's files move.

A home made before there were several products has at a folder's root what now lies in the product's folder.
"""

from __future__ import annotations

import os
import pkgutil
import stat
from pathlib import Path

import products
from plumbline.settings import settings
from products.churn import CHURN

MOVED = ("training", "rollouts", "feast", "preview")
"""The folders that hold one folder a product now. All that was there before was churn's."""


def close_to_others() -> None:
    """Makes the home this user's alone, wherever it is: it holds passwords, the models' database and the outcome log.

    A volume that Kubernetes shares with a group (it sets the group's bit) and a home of another user stay as they are.
    """
    home = settings().home
    about = home.stat() if home.is_dir() else None
    if about and about.st_uid == os.getuid() and about.st_mode & 0o077 and not about.st_mode & stat.S_ISGID:
        home.chmod(0o700)


def upgrade() -> None:
    """Moves what an older home has. Killed in the middle, it goes on next time."""
    ours = {page.name for page in pkgutil.iter_modules(products.__path__)}
    for folder in (settings().home / name for name in MOVED):
        old = [entry for entry in folder.iterdir() if entry.name not in ours] if folder.is_dir() else []
        for entry in sorted(old):
            _move(entry, folder / CHURN.name / entry.name)


def _move(old: Path, new: Path) -> None:
    new.parent.mkdir(exist_ok=True)
    if not new.exists():
        old.rename(new)
