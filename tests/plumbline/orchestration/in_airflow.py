"""A script in Airflow's own environment, over a database of the test's home."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from plumbline.orchestration import airflow
from plumbline.settings import ENVIRONMENTS, ROOT

PYTHON = ENVIRONMENTS / "orchestration" / "bin" / "python"


def said(script: str, **more: str) -> list[str]:
    """The lines that the script prints, with `more` in its environment; the assertion that it ended well."""
    environment = {**os.environ, **airflow.environment(), **more}
    Path(environment["AIRFLOW_HOME"]).mkdir(parents=True)
    for command in (["-m", "airflow", "db", "migrate"], ["-c", script]):
        told = subprocess.run(
            [PYTHON, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
        )
        assert told.returncode == 0, told.stderr[-2000:]
    return told.stdout.splitlines()
