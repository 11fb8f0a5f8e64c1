"""Airflow itself on loopback: API server with its pages, scheduler, DAG processor; private servers of the home.

SQLite and the LocalExecutor, which is enough to look at the DAGs, trigger them and see one start the other by its
asset. DAGs are paused until someone unpauses them.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

from plumbline import files
from plumbline.errors import ServiceUnavailable
from plumbline.orchestration import airflow
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ENVIRONMENTS, settings

NAME = "airflow-api"
USER = "admin"


def start() -> dict[str, str]:
    """Starts what does not run yet; the pages' address, the user, and the file with the password.

    Raises ServiceUnavailable with the log's last lines when a part does not come up.
    """
    _make_ready()
    api = services.ensure(_launch(NAME, "api-server", lambda port: _health(port, None) is not None))
    for part, healthy in (("scheduler", "scheduler"), ("dag-processor", "dag_processor")):
        services.ensure(
            _launch(f"airflow-{part}", part, lambda _, healthy=healthy: _health(api.port, healthy) == "healthy", api)  # type: ignore[misc]
        )
    address = f"http://{services.HOST}:{api.port}"
    return {"airflow": address, "user": USER, "password": f"in {passwords()}", "stop": "`make down`"}


def passwords() -> Path:
    """A JSON object, user to password, that only the owner reads."""
    return settings().home / "airflow" / "passwords.json"


def _make_ready() -> None:
    """The database, and the password before Airflow makes one and prints it into its log."""
    if not passwords().exists():
        files.write_whole(passwords(), json.dumps({USER: secrets.token_urlsafe(24)}), mode=0o600)
    say("preparing Airflow's database")
    done = subprocess.run(
        [_binary(), "db", "migrate"], env={**os.environ, **_environment()}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceUnavailable("Airflow's database: " + "\n  ".join(done.stderr.splitlines()[-8:]))


def _launch(name: str, part: str, ready: Callable[[int], bool], api: services.Service | None = None) -> services.Launch:
    def command(port: int, token: str) -> list[str]:
        # Without these the API server listens on all addresses, and the scheduler serves logs there.
        given = {"api-server": ["--host", services.HOST, "--port", str(port), "--workers", "1"]}
        return [_binary(), part, *given.get(part, ["--skip-serve-logs"] if part == "scheduler" else [])]

    def env(port: int, token: str) -> dict[str, str | None]:
        address = f"http://{services.HOST}:{api.port if api else port}"
        return {
            **_environment(),
            "AIRFLOW__API__BASE_URL": address,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        }

    return services.Launch(name, command, lambda port, token: ready(port), env)


def _environment() -> dict[str, str]:
    return {
        **airflow.environment(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords()),
        "AIRFLOW__CORE__PARALLELISM": "2",
        **metrics_environment(services.find("exporter")),
    }


def metrics_environment(exporter: services.Service | None) -> dict[str, str]:
    """Airflow's own metrics go to the home's exporter when it runs, by OpenTelemetry's protocol."""
    if exporter is None:
        return {}
    return {
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{services.HOST}:{exporter.port}/v1/metrics",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }


def _binary() -> str:
    return str(ENVIRONMENTS / "orchestration" / "bin" / "airflow")


def _health(port: int, part: str | None) -> str | None:
    """What the API server says of a part (of itself: of the database); None when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{services.HOST}:{port}/api/v2/monitor/health", timeout=2) as answer:
            status: str | None = json.load(answer)[part or "metadatabase"]["status"]
            return status
    except OSError:
        return None
