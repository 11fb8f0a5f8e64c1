"""The image product's leakage gates, and what mends what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from validation.images import augmented_copies, label_time, metadata_leakage, near_duplicates
from validation.leakage_findings import LIMITS, Audited, Finding

ADVICE = "mend what put them there (the split, the labels, the source), then `{command}` again."


def limits() -> Path:
    """The file of the limits."""
    return LIMITS


def limits_name() -> str:
    """The same for messages."""
    return "validation/leakage.yaml"


def findings(audited: Audited, limits: dict[str, Any]) -> dict[str, list[Finding]]:
    """Each gate's findings on a dataset."""
    gates = {
        "near_duplicates": near_duplicates.findings,
        "augmented_copies": augmented_copies.findings,
        "metadata_leakage": metadata_leakage.findings,
        "label_time": label_time.findings,
    }
    return {name: gate(audited, limits[name]) for name, gate in gates.items()}
