"""Which side of a rollout this predictor is: `stable` or `canary`."""

from __future__ import annotations

from pathlib import Path

from plumbline import clock
from plumbline.settings import settings

CANARY, STABLE = "canary", "stable"
SECONDS = 1.0
"""How long what the file said holds: a promoted canary is stable from then on, without a restart."""


class Track:
    """The word in a file, `PLUMBLINE_TRACK_FILE` by default, read again at most once a second.

    In a pod it is the label `track`, which the rollout's controller changes and kubelet writes there. Whoever is not
    told that they are the canary is stable: no file, none that can be read, another word. `without` is the track of a
    process that has no file at all.
    """

    def __init__(self, file: Path | None = None, without: str = STABLE) -> None:
        self._file = file or settings().track_file
        self._word = without
        self._read_at: float | None = None

    def __call__(self) -> str:
        """The track now."""
        now = clock.monotonic()
        if self._file and (self._read_at is None or now - self._read_at >= SECONDS):
            self._word, self._read_at = self._read(self._file), now
        return self._word

    @staticmethod
    def _read(file: Path) -> str:
        try:
            return CANARY if file.read_text().strip() == CANARY else STABLE
        except (OSError, UnicodeDecodeError):
            return STABLE
