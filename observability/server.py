"""The exporter over HTTP: what Prometheus asks for, and where Airflow sends its own metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from observability import airflow_metrics
from observability.exporter import Exporter
from observability.rule import PREDICTOR
from plumbline.errors import ServiceUnavailable
from plumbline.progress import say
from plumbline.servers import services

PORT = 9102


def targets() -> list[dict[str, Any]]:
    """The home's predictor, as Prometheus' HTTP service discovery wants to be told of targets."""
    found = services.find(PREDICTOR)
    return [{"targets": [f"{services.HOST}:{found.port}"], "labels": {"job": PREDICTOR}}] if found else []


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line a scrape: they would fill the disk."""


def server(host: str, port: int) -> WSGIServer:
    """The server: /metrics; /targets for a Prometheus on this machine; /v1/metrics, where Airflow sends its own."""
    from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    exporter = Exporter()
    registry.register(exporter)
    shown = make_wsgi_app(registry)

    def app(environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/targets":
            respond("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(targets()).encode()]
        if environ["PATH_INFO"] == airflow_metrics.PATH:
            respond(exporter.airflow.take(environ), [("Content-Type", "application/x-protobuf")])
            return [b""]
        answer: Iterable[bytes] = shown(environ, respond)
        return answer

    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ServiceUnavailable(f"the exporter cannot listen on {host}:{port}: {error.strerror}; --port") from None


def serve(host: str = services.HOST, port: int = PORT) -> None:
    """Answers scrapes until SIGTERM or Ctrl-C. Port 0 takes a free one."""
    with server(host, port) as serving:
        say(f"metrics on http://{host}:{serving.server_port}/metrics")
        serving.serve_forever()
