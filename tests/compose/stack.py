"""A compose stack for the tests: a project of its own beside whatever runs, ports of its own, its secrets in a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_rest import AirflowRest

from plumbline.servers import services
from plumbline.settings import ROOT
from toolchain import compose

PROJECT = "plumbline-test"
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "CHURN_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")


class Asking:
    """Callers who ask about one customer as long as this is open; `statuses` says how often each was answered."""

    def __init__(self, stack: Stack, customer: int, callers: int = 3) -> None:
        self.stack, self.customer = stack, customer
        self.statuses: Counter[int] = Counter()
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    def __enter__(self) -> Asking:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join(20)

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            self.statuses[self.stack.ask(self.customer)[0]] += 1


@dataclass
class Stack(AirflowRest):
    """The stack, driven as a person drives it: Compose's command line, Airflow's REST, requests through Envoy."""

    folder: Path
    now: str
    ports: dict[str, int] = field(default_factory=lambda: {name: services.free_port() for name in PORTS})
    profiles: list[str] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = self.folder / ".env"
        compose.write_secrets(self.env)

    @property
    def airflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['AIRFLOW_PORT']}"

    @property
    def airflow_password(self) -> str:
        return self.secrets["AIRFLOW_PASSWORD"]

    @property
    def command(self) -> list[str]:
        """Compose, told which stack: this one, with every profile that is in use."""
        head = ["--project-name", PROJECT, "--env-file", str(self.env)]
        command, program = compose.compose(local=True, profiles=tuple(self.profiles)), compose.program()
        return [*program, *head, *command[len(program) :]]

    @property
    def secrets(self) -> dict[str, str]:
        """What .env holds now."""
        return compose.read_secrets(self.env)

    def compose(self, *arguments: str, timeout: float = 900, check: bool = True, given: str | None = None) -> str:
        """What one call of Compose prints."""
        done = subprocess.run(
            [*self.command, *arguments], cwd=ROOT, env={**os.environ, **self.told}, capture_output=True, text=True,
            timeout=timeout, check=False, input=given,
        )  # fmt: skip
        said = f"{arguments} ended with {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert not check or done.returncode == 0, said
        return done.stdout

    @property
    def told(self) -> dict[str, str]:
        """What the stack's files take from the environment."""
        return {**{name: str(port) for name, port in self.ports.items()}, "PLUMBLINE_NOW": self.now, **self.given}

    def up(self, *services: str) -> float:
        """Everything up and healthy; seconds."""
        begun = time.monotonic()
        self.compose("up", "--detach", "--wait", "--wait-timeout", "800", "--remove-orphans", *services)
        return time.monotonic() - begun

    def down(self, volumes: bool = False) -> None:
        profiles, self.profiles = self.profiles, list(compose.PROFILES)
        self.compose("down", *(["--volumes"] if volumes else []))
        self.profiles = profiles

    def containers(self, service: str) -> list[str]:
        """The names of a service's containers."""
        found = self.compose("ps", "--format", "{{.Name}}", service).split()
        return [name for name in found if "-run-" not in name]

    def plumb(self, *command: str, service: str = "rollout", check: bool = True) -> str:
        """A `plumb` command in a container."""
        return self.compose("exec", "-T", service, "plumb", *command, check=check)

    def python(self, code: str, service: str = "rollout", program: str = "python") -> str:
        """What Python code prints in a container."""
        return self.compose("exec", "-T", service, program, "-", given=code)

    def kill(self, service: str) -> None:
        """SIGKILL, as a machine that dies; the restart policy does not count a kill by hand, so it is started again."""
        (name, *_) = self.containers(service)
        subprocess.run(["docker", "kill", name], capture_output=True, check=True)
        subprocess.run(["docker", "start", name], capture_output=True, check=True)

    @contextmanager
    def cut_off(self, service: str, network: str) -> Iterator[None]:
        """A service without one of its networks."""
        names = [f"{PROJECT}_{network}", self.containers(service)[0]]
        subprocess.run(["docker", "network", "disconnect", *names], capture_output=True, check=True)
        try:
            yield
        finally:
            subprocess.run(
                ["docker", "network", "connect", "--alias", service, *names], capture_output=True, check=True
            )

    def running(self) -> list[str]:
        """Containers of the stack that run."""
        told = subprocess.run(
            ["docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", "{{.Names}}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return sorted(name.removeprefix(f"{PROJECT}-").removesuffix("-1") for name in told.stdout.split())

    @contextmanager
    def environment(self) -> Iterator[None]:
        """What the stack's files take from the environment, in this process: for who calls Compose himself."""
        before = dict(os.environ)
        os.environ |= self.told
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before

    def prometheus(self, query: str) -> dict[str, str]:
        """Job → value, of what Prometheus answers."""
        url = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return {item["metric"]["job"]: item["value"][1] for item in found}

    def alerts(self) -> set[str]:
        """Names of the alerts that Alertmanager holds."""
        url = f"http://127.0.0.1:{self.ports['ALERTMANAGER_PORT']}/api/v2/alerts"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return {item["labels"]["alertname"] for item in json.load(answer)}

    def memory(self) -> dict[str, int]:
        """Service → MiB that it holds now."""
        names = [f"{PROJECT}-{name}-1" for name in self.running()]
        told = subprocess.run(
            ["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *names],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
        found = re.findall(rf"{PROJECT}-(\S+)-1 ([\d.]+)(KiB|MiB|GiB)", told)
        return {name: round(float(size) * units[unit]) for name, size, unit in found}

    def ask(self, customer: int) -> tuple[int, dict[str, Any]]:
        """Status and answer about a customer, through Envoy."""
        url = f"http://127.0.0.1:{self.ports['CHURN_PORT']}/v1/models/churn-predictor:predict"
        body = json.dumps({"instances": [{"customer_id": customer}]}).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {"error": error.read().decode(errors="replace")[:500]}
        except OSError as error:
            return 0, {"error": str(error)}
