"""Churn's leakage gates, and what mends what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbline import shop
from validation.churn import split_contamination, target_leakage, temporal_leakage
from validation.leakage_findings import LIMITS, Audited, Finding

ADVICE = (
    "mend the split, the service or the on-demand function, then `{command}` again. A stored feature is in the "
    "release: mend customers.sql, let the next daily run publish, and take that release's dataset."
)


def limits() -> Path:
    """The file of the limits: the shop's own, where it has one."""
    return shop.own(LIMITS.name, LIMITS)


def limits_name() -> str:
    """The same for messages."""
    return shop.own_name(LIMITS.name, LIMITS)


def findings(audited: Audited, limits: dict[str, Any]) -> dict[str, list[Finding]]:
    """Each gate's findings on a dataset."""
    temporal = temporal_leakage.findings(audited, limits["temporal_leakage"])
    target = target_leakage.findings(audited, limits["target_leakage"])
    return {
        "target_leakage": target_leakage.but_for(target, temporal_leakage.proven(temporal)),
        "temporal_leakage": temporal,
        "split_contamination": split_contamination.findings(audited, limits["split_contamination"]),
    }
