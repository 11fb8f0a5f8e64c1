"""MLflow with its artifacts in a real S3 server and its database behind a server: nothing of it is in the home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plumbline.servers import services
from plumbline.settings import settings
from products.churn import CHURN
from tests.object_store import S3Server
from tests.training.test_mlflow_server import mlflow_server
from training import tracking

__all__ = ["mlflow_server"]


@pytest.fixture
def shop_home(home: Path) -> Path:
    """Where the tracking server's record is."""
    return home


def test_what_is_logged_is_in_the_bucket_and_reads_back(
    s3_server: S3Server, mlflow_server: services.Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    url = s3_server.fresh_url()
    where = {
        "PLUMBLINE_ARTIFACTS": url,
        "PLUMBLINE_MLFLOW_URL": f"http://{services.HOST}:{mlflow_server.port}",
        **s3_server.env,
    }
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    client = tracking.client()
    run = client.create_run(tracking.experiment_id(client, CHURN))
    client.log_text(run.info.run_id, "0.8393", "auc.txt")
    assert run.info.artifact_uri.startswith(f"{url}/")
    found = client.download_artifacts(run.info.run_id, "auc.txt", str(tmp_path))
    assert Path(found).read_text() == "0.8393"
    assert not (home / "mlflow").exists()
