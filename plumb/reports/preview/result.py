"""What a preview found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Preview:
    """What a preview found out about one table."""

    table: str
    release_id: int
    as_of: str
    share: float
    customers: int
    diff: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    metrics: dict[str, Any] | None = None
    no_metrics: str = ""
    limits: str = ""
    readers: list[str] = field(default_factory=list)
    page: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether something could not be built, or a test beside the models failed."""
        return bool(self.errors) or any(test["status"] not in ("pass", "warn") for test in self.tests)
