"""The predictors' image has the packages of requirements/serving.txt: nothing that they import is outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from plumbline import clock
from tests.serving import as_a_pod

SERVE = ["-m", "plumb", "serve", "--help"], ["-m", "plumb", "images", "serve", "--help"]
JUDGE = ["-m", "plumb", "judge", "--help"]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **as_a_pod.locked(folder)}
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd="/", capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("arguments", [["-m", "serving.imports"], *SERVE, JUDGE])
def test_serving_imports_its_lock_alone(arguments: list[str], tmp_path: Path) -> None:
    done = python(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_outside_the_lock_is_refused(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "import mlflow")
    assert "ModuleNotFoundError: mlflow is not in requirements/serving.txt" in done.stderr


def test_a_store_for_online_reads_reads_nothing_offline(home: Path) -> None:
    from feature_repo import store as feature_store
    from products.churn import CHURN

    feature_store.apply(CHURN)
    asked = pd.DataFrame({"customer_id": [1], "event_timestamp": [clock.now()]})
    with pytest.raises(NotImplementedError):
        feature_store.open_store(CHURN).get_historical_features(asked, ["customer_features:orders_7d"])
