"""MLflow's pages: nobody without the home's login reads the registry or moves an alias."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from plumb.demo import mlflow_pages, up
from plumbline.servers import services
from products.churn import CHURN
from training import tracking

ALIAS = "/api/2.0/mlflow/registered-models/alias"


@pytest.mark.slow
@pytest.mark.servers
def test_only_who_logs_in_reads_or_moves_an_alias(home: Path) -> None:
    client = tracking.client()
    client.create_registered_model(CHURN.model)
    for _ in range(2):
        client.create_model_version(CHURN.model, f"file://{home}/a-model")
    client.set_registered_model_alias(CHURN.model, "champion", "2")
    server = services.ensure(up._mlflow())

    def ask(path: str, login: str | None, body: dict[str, str] | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    moved = {"name": CHURN.model, "alias": "champion", "version": "1"}
    for stranger in (None, "plumb:", "admin:admin", f"root:{server.token}"):
        assert ask(ALIAS, stranger, moved)[0] == 401
        assert ask(f"{ALIAS}?name={CHURN.model}&alias=champion", stranger)[0] == 401
    assert str(client.get_model_version_by_alias(CHURN.model, "champion").version) == "2"
    owner = f"{mlflow_pages.USER}:{server.token}"
    status, found = ask(f"{ALIAS}?name={CHURN.model}&alias=champion", owner)
    assert (status, json.loads(found)["model_version"]["version"]) == (200, "2")
    status, page = ask("/", owner)
    assert status == 200 and b"<title>MLflow</title>" in page
    assert (home / "mlflow.json").stat().st_mode & 0o077 == 0
