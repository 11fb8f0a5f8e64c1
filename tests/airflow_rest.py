"""Airflow as a person asks it: its REST API, logged in; for a stack of containers and for a cluster."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

OVER = ("success", "failed")


class AirflowRest:
    """What asks the API server at `airflow_url` as `plumb`."""

    _token: str = ""

    @property
    def airflow_url(self) -> str:
        """Where the API server is, without a slash at the end."""
        raise NotImplementedError

    @property
    def airflow_password(self) -> str:
        """The one user's password."""
        raise NotImplementedError

    def airflow(self, path: str, data: Any = None, method: str | None = None) -> Any:
        """What Airflow's API answers; asked again for a minute while it does not."""
        deadline = time.monotonic() + 90
        while True:
            try:
                if not self._token:
                    login = {"username": "plumb", "password": self.airflow_password}
                    self._token = self._ask("/auth/token", login, None)["access_token"]
                return self._ask(path, data, method)
            except urllib.error.HTTPError as error:
                if error.code not in (401, 403) or time.monotonic() > deadline:
                    raise
                self._token = ""
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _ask(self, path: str, data: Any, method: str | None) -> Any:
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        body = None if data is None else json.dumps(data).encode()
        url = f"{self.airflow_url}{path}"
        request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def trigger(self, dag: str, as_of: str) -> str:
        """Starts a run of a DAG for a day, once the DAG is known; its id."""
        deadline = time.monotonic() + 120
        while dag not in {told["dag_id"] for told in self.airflow("/api/v2/dags")["dags"]}:
            assert time.monotonic() < deadline, f"Airflow does not know {dag}"
            time.sleep(2)
        told = self.airflow(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": {"as_of": as_of}})
        return str(told["dag_run_id"])

    def newest(self, dag: str) -> str:
        """The id of a DAG's newest run, awaited: an asset starts it."""
        deadline = time.monotonic() + 120
        while not (runs := self.airflow(f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after")["dag_runs"]):
            assert time.monotonic() < deadline, f"{dag} was not started"
            time.sleep(2)
        return str(runs[0]["dag_run_id"])

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Task → what Airflow says of it."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        return {told["task_id"]: told for told in self.airflow(path)["task_instances"]}

    def ended(self, dag: str, run: str, within: float = 1500) -> Iterator[dict[str, dict[str, Any]]]:
        """The run's tasks, every second until it has ended. Fails unless it ended well."""
        deadline = time.monotonic() + within
        while True:
            yield (tasks := self.tasks(dag, run))
            state = self.airflow(f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            if state in OVER:
                assert state == "success", {name: told["state"] for name, told in tasks.items()}
                return
            assert time.monotonic() < deadline, f"{dag} did not end"
            time.sleep(1)
