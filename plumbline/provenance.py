"""Which code and which environment ran: what a release and a model name beside their data."""

from __future__ import annotations

import subprocess
from functools import cache

from plumbline import files
from plumbline.settings import ROOT, settings

LOCK = ROOT / "requirements" / "pipeline.txt"


@cache
def code_sha() -> str:
    """The commit; with `-dirty.<digest of the changes>` behind it when the checkout is not clean."""
    if told := settings().code_sha:
        return told
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        changes = _git("diff", "HEAD") + _untracked()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty.{files.sha256(changes)[:12]}" if changes.strip() else commit


def _untracked() -> bytes:
    """Names and contents of files that git does not know and does not ignore."""
    names = filter(None, _git("ls-files", "-z", "--others", "--exclude-standard").decode().split("\0"))
    return b"".join(name.encode() + b"\0" + (ROOT / name).read_bytes() for name in names if (ROOT / name).is_file())


@cache
def lock_hash() -> str:
    """SHA-256 of the pipeline environment's hashed lock."""
    return f"sha256:{files.sha256(LOCK.read_bytes())}"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
