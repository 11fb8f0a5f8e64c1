from __future__ import annotations

import math

import pytest

from training import evaluate


def test_metrics_by_hand() -> None:
    import numpy as np

    found = evaluate.metrics(np.array([True, False, True, False]), np.array([0.9, 0.6, 0.4, 0.1]), "m_")
    # Of the four pairs (churned, kept) three are in the right order; precision is 1 at the first hit, then 2/3.
    assert found["m_roc_auc"] == pytest.approx(0.75)
    assert found["m_pr_auc"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    assert found["m_log_loss"] == pytest.approx(-(math.log(0.9) * 2 + math.log(0.4) * 2) / 4, abs=1e-6)
    assert found["m_brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["m_mean_prediction"] == pytest.approx(0.5)


def test_a_certain_mistake_costs_much_but_not_infinity() -> None:
    import numpy as np

    losses = evaluate.log_losses(np.array([True, False]), np.array([0.0, 1.0], dtype=np.float32))
    assert losses == pytest.approx([-math.log(1e-6)] * 2, rel=1e-6)


def test_what_cannot_be_judged_is_refused() -> None:
    import numpy as np

    with pytest.raises(ValueError, match="only one class"):
        evaluate.metrics(np.array([True, True]), np.array([0.5, 0.6]))
    with pytest.raises(ValueError, match=r"\(2,\) labels for \(1,\)"):
        evaluate.metrics(np.array([True, False]), np.array([0.5]))
    for bad in (1.2, math.nan):
        with pytest.raises(ValueError, match="must lie in"):
            evaluate.metrics(np.array([True, False]), np.array([0.5, bad]))


def test_calibration_groups_by_rising_prediction() -> None:
    import numpy as np

    probability = np.array([0.1, 0.1, 0.2, 0.8, 0.9, 0.9])
    predicted, observed = evaluate.calibration(np.array([False, False, True, False, True, True]), probability, bins=2)
    assert predicted == pytest.approx([0.4 / 3, 2.6 / 3])
    assert observed == pytest.approx([1 / 3, 2 / 3])


def test_calibration_of_a_constant_is_one_point() -> None:
    import numpy as np

    predicted, observed = evaluate.calibration(np.array([True, False]), np.array([0.5, 0.5]))
    assert (predicted.tolist(), observed.tolist()) == ([0.5], [0.5])
