"""What watches a laptop: the exporter, Prometheus and Alertmanager as private servers of the home, on loopback.

Their configuration is written into `<home>/monitoring`; the rules are the committed ones. Who is told is what lies in
`<home>/secrets`: `slack-<channel>` holds a channel's URL, `pagerduty` the key. Without them alerts are seen in pages.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from observability import alertmanager, generated
from observability.alertmanager import Waits
from observability.rule import EXPORTER
from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST, Launch, Service
from plumbline.settings import ROOT, settings, settings_file
from toolchain import binaries

PROMETHEUS, ALERTMANAGER = "prometheus", "alertmanager"


@dataclass(frozen=True)
class Pace:
    """How often Prometheus scrapes and evaluates, and says again what fires; how Alertmanager waits, and where
    PagerDuty is if not where it is."""

    interval: str = "5s"
    waits: Waits = field(default_factory=Waits)
    pagerduty_url: str | None = None
    said_again: str = "1m"


def up(pace: Pace | None = None) -> dict[str, str]:
    """Starts what does not run yet; name → address, or for what lacks its binary how to get it."""
    pace = pace or Pace()
    exporter = services.ensure(exporter_server())
    found = {"exporter": f"http://{HOST}:{exporter.port}/metrics"}
    if binaries.missing():
        return {**found, "prometheus": binaries.HOW}
    binaries.share(settings().home)
    tells = services.ensure_configured(_alertmanager(pace))
    watches = services.ensure_configured(_prometheus(pace, exporter, tells))
    told = sorted(_secrets())
    return {
        **found,
        "prometheus": f"http://{HOST}:{watches.port}",
        "alertmanager": f"http://{HOST}:{tells.port}",
        "alerts go to": ", ".join(told) or f"the pages alone; {folder('secrets')} may hold slack-<channel>, pagerduty",
    }


def folder(name: str) -> Path:
    """A folder of the home: `monitoring`, or `secrets`."""
    return settings().home / name


def prometheus_config(exporter: int, tells: int, interval: str) -> dict[str, Any]:
    """Prometheus' configuration, of targets at these loopback ports. The exporter says where predictors are."""
    sd = {"url": f"http://{HOST}:{exporter}/targets", "refresh_interval": interval}
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(ROOT / generated.RULES / "*.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{HOST}:{tells}"]}]}]},
        "scrape_configs": [
            {"job_name": EXPORTER, "static_configs": [{"targets": [f"{HOST}:{exporter}"]}]},
            {"job_name": "predictors", "http_sd_configs": [sd]},
        ],
    }


def exporter_server() -> Launch:
    """The exporter alone: it needs no binary of others."""

    def command(port: int, token: str) -> list[str]:
        return [sys.executable, "-m", "plumb", "exporter", "--port", str(port)]

    def env(port: int, token: str) -> dict[str, str | None]:
        # A replay moves the clock in the settings file; a copy in the environment would hold it where it is.
        file = settings_file()
        return {"PLUMBLINE_NOW": None} if file.exists() and "PLUMBLINE_NOW=" in file.read_text() else {}

    return Launch("exporter", command, lambda port, token: services.answers(f"http://{HOST}:{port}/targets", 2), env)


def _alertmanager(pace: Pace) -> Launch:
    config = alertmanager.config(
        PurePosixPath(folder("secrets")), pace.waits, pagerduty_url=pace.pagerduty_url, only=_secrets()
    )

    def command(port: int, token: str) -> list[str]:
        where = _written("alertmanager.yml", config)
        data = f"--storage.path={folder('monitoring') / 'alertmanager'}"
        listen = f"--web.listen-address={HOST}:{port}"
        return [str(binaries.find(ALERTMANAGER)), f"--config.file={where}", data, listen, "--cluster.listen-address="]

    made_of = files.sha256(repr(config).encode())
    return Launch(ALERTMANAGER, command, _ready, more=lambda: {"made_of": made_of})


def _prometheus(pace: Pace, exporter: Service, tells: Service) -> Launch:
    config = prometheus_config(exporter.port, tells.port, pace.interval)

    def command(port: int, token: str) -> list[str]:
        where = _written("prometheus.yml", config)
        data = f"--storage.tsdb.path={folder('monitoring') / 'prometheus'}"
        listen = f"--web.listen-address={HOST}:{port}"
        kept, again = "--storage.tsdb.retention.time=30d", f"--rules.alert.resend-delay={pace.said_again}"
        return [str(binaries.find(PROMETHEUS)), f"--config.file={where}", data, kept, again, listen]

    made_of = files.sha256(repr(config).encode(), *(path.read_bytes() for path in _rule_files()))
    return Launch(PROMETHEUS, command, _ready, more=lambda: {"made_of": made_of})


def _rule_files() -> list[Path]:
    return sorted((ROOT / generated.RULES).glob("*.yml"))


def _written(name: str, config: dict[str, Any]) -> Path:
    path = folder("monitoring") / name
    files.write_whole(path, generated.dumped(config, "observability/stack.py, for this home"), mode=0o600)
    return path


def _secrets() -> set[str]:
    return {path.name for path in folder("secrets").glob("*") if path.is_file()}


def _ready(port: int, token: str) -> bool:
    return services.answers(f"http://{HOST}:{port}/-/ready", 2)
