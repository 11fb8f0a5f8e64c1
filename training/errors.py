"""What can go wrong between a release and a registered model."""

from __future__ import annotations

from plumbline.errors import PlumblineError


class TrainingError(PlumblineError):
    """A dataset, a model or a comparison cannot be made as asked; the message says what to do next."""
