"""One table names every metric; what is not in it cannot be made."""

from __future__ import annotations

import pytest

from plumbline.errors import PlumblineError
from plumbline.metrics import SCHEMA, instrument


def test_every_metric_of_the_schema_can_be_made_once() -> None:
    assert len({metric.name for metric in SCHEMA}) == len(SCHEMA)
    for metric in SCHEMA:
        assert instrument(metric.name) is instrument(metric.name)
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_a_metric_that_nobody_declared_is_refused() -> None:
    with pytest.raises(PlumblineError, match="no metric 'predictions'"):
        instrument("predictions")
