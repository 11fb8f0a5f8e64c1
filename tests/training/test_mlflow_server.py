"""Tracking, registry and artifacts on a real MLflow server that the settings name; nothing of MLflow in the home."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import ServiceUnavailable
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state.trainings import Place
from products.churn import CHURN
from serving import loaded_model as registry
from training import datasets, register, runs, tracking
from training.churn import model


@pytest.fixture
def mlflow_server(shop_home: Path, tmp_path: Path) -> Iterator[services.Service]:
    """SQLite behind it, artifacts through it."""

    def command(port: int, token: str) -> list[str]:
        where = [
            "--backend-store-uri",
            f"sqlite:///{tmp_path}/mlflow.db",
            "--artifacts-destination",
            str(tmp_path / "a"),
        ]
        return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *where]

    def ready(port: int, token: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{services.HOST}:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    yield services.ensure(services.Launch("trackingserver", command, ready, env=lambda port, token: {**quiet}))
    services.stop("trackingserver")


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_MLFLOW_URL", url)
    settings.cache_clear()


def test_a_model_is_tracked_registered_and_loaded_through_the_server(
    shop: Callable[[int], dict[str, Any]],
    shop_home: Path,
    mlflow_server: services.Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy as np
    import xgboost

    use(f"http://{services.HOST}:{mlflow_server.port}", monkeypatch)
    shop(1)
    assert runs.train(Place(CHURN, 1))["state"] == "done"
    assert runs.train(Place(CHURN, 1))["state"] == "unchanged"
    told = register.register(Place(CHURN, 1))
    assert told["what"].startswith("churn_xgb version 1 is challenger")
    registry.client().set_registered_model_alias(CHURN.model, registry.CHAMPION, "1")
    champion = register.champion_of(tracking.client(), CHURN)
    assert champion is not None and str(champion.version) == "1"

    loaded, data = registry.load(CHURN, registry.CHAMPION), datasets.load(Place(CHURN, 1))
    booster = loaded.trusted.booster
    assert (loaded.version, loaded.release_id, booster.feature_names) == ("1", "1", data.features)
    rows = data.part(test=True)
    scores = booster.predict(xgboost.DMatrix(model.matrix(rows, data.features)))
    again = model.fit(data.part(test=False), data.features, model.Params())
    assert np.array_equal(scores, model.probability(again, rows))

    run = tracking.client().get_run(runs.load(Place(CHURN, 1))["mlflow_run_id"])
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert {path.name for path in (tmp_path / "a").rglob("*.*")} >= {"model.ubj", "dataset.json", "roc.png"}
    found = [path for path in shop_home.rglob("*") if "mlflow" in path.name or "mlruns" in path.name]
    assert found == [], "nothing of MLflow is in the home"


def test_a_server_that_is_away_is_unavailable_within_seconds(shop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind((services.HOST, 0))
        silent.listen()
        for port in (services.free_port(), silent.getsockname()[1]):
            use(f"http://app:hunter2@{services.HOST}:{port}", monkeypatch)
            for ask in (tracking.client, lambda: registry.find(CHURN, registry.CHAMPION)):
                begun = time.monotonic()
                with pytest.raises(
                    ServiceUnavailable, match=r"MLflow \(PLUMBLINE_MLFLOW_URL\) does not answer"
                ) as error:
                    ask()
                assert time.monotonic() - begun < 60
                assert "hunter2" not in str(error.value)


def test_what_mlflow_raises_in_mid_command_is_one_line_and_exit_code_4(shop_home: Path) -> None:
    url = f"http://app:hunter2@{services.HOST}:{services.free_port()}"
    script = (
        "import sys; from plumb import main; from serving import deploy, loaded_model\n"
        "deploy.deploy = lambda *_: loaded_model.client().search_registered_models()\n"
        "sys.argv = ['plumb', 'deploy']; main.main()"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PLUMBLINE_MLFLOW_URL": url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert told.returncode == 4
    assert told.stderr.splitlines()[-1].startswith("plumb: MLflow: API request to http")
    assert "hunter2" not in told.stderr and "Traceback" not in told.stderr
