"""What can go wrong with a rollout on a laptop."""

from __future__ import annotations

from plumbline.errors import PlumblineError


class RolloutError(PlumblineError):
    """A manifest cannot be followed, or a rollout cannot start or go on."""
