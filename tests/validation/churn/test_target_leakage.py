"""What a feature is believed to know, in shops where few churn and where most do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from validation.churn import target_leakage, temporal_leakage
from validation.leakage_findings import LIMITS as LIMITS_FILE
from validation.leakage_findings import Audited, Finding

ROWS = 4_000
LIMITS = yaml.safe_load(LIMITS_FILE.read_text())["target_leakage"]


def failing(base_rate: float, **features: object) -> list[str]:
    """What the gate says of a dataset in which that share churns: regulars seldom do, whoever lapsed often does."""
    return [finding.told for finding in findings(base_rate, **features) if finding.failed]


def findings(base_rate: float, **features: object) -> list[Finding]:
    random = np.random.default_rng(7)
    orders_30d = random.integers(0, 11, ROWS)
    chance = base_rate * np.where(orders_30d == 10, 0.0, 1.1)
    churned = random.random(ROWS) < chance
    rows = pd.DataFrame(
        {
            "customer_id": range(ROWS),
            "event_timestamp": pd.Timestamp("2017-09-01", tz="UTC"),
            "orders_30d": orders_30d,
            "churned": churned,
            "is_test": random.random(ROWS) < 0.1,
        }
    )
    for name, make in features.items():
        rows[name] = make(rows, random)  # type: ignore[operator]
    return target_leakage.findings(Audited({"features": ["orders_30d", *features]}, rows), LIMITS)


def reason(share: float) -> object:
    """A column that is filled for some who left, and for nobody else."""
    return lambda rows, random: np.where(rows["churned"] & (random.random(len(rows)) < share), 1.0, np.nan)


def loyalty(rows: pd.DataFrame, random: np.random.Generator) -> object:
    """A column that is filled for some who stayed, and for nobody else."""
    return np.where(~rows["churned"] & (random.random(len(rows)) < 0.9), 1.0, np.nan)


def test_regulars_who_never_churn_are_believed_where_few_churn() -> None:
    assert failing(0.05) == []


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_reason_for_leaving_is_named_where_few_churn_too(share: float) -> None:
    assert any("reason" in told for told in failing(0.08, reason=reason(share)))


def test_where_most_churn_a_group_that_never_does_is_named() -> None:
    """In CDNOW 86 % churn: both sides are judged there."""
    told = failing(0.86)
    assert any(told.startswith("orders_30d 10: 0.0% of ") and "1% to 99% is believed" in told for told in told)


def test_a_sign_of_staying_is_named_where_half_stay() -> None:
    assert any("loyalty" in told for told in failing(0.5, loyalty=loyalty))


def test_a_feature_that_is_what_was_known_by_then_stands_and_another_still_fails() -> None:
    found = findings(0.86, reason=reason(0.5))
    assert {f.what for f in found if f.failed} >= {"orders_30d: purest group", "reason: purest group"}
    believed = target_leakage.but_for(found, {"orders_30d"})
    assert {f.what.partition(":")[0] for f in believed if f.failed} == {"reason"}
    assert [f.what for f in believed] == [f.what for f in found]
    told = next(f.told for f in believed if f.what == "orders_30d: purest group")
    assert "0.0% of" in told and told.endswith("known by then give, so it stands")


def test_only_what_equals_its_plain_definition_in_each_row_is_proven() -> None:
    def finding(what: str, rows: int) -> Finding:
        return Finding(what, rows > 0, "", float(rows), 0.0, rows)

    found = [
        finding("orders_30d: as knowable", 0),
        finding("orders_90d: as knowable", 1),
        replace(finding("avg_ticket: as knowable", 3_000), failed=False),  # another definition: not judged
        finding("tenure_months: as stored", 0),
    ]
    assert temporal_leakage.proven(found) == {"orders_30d"}
