"""The exporter over HTTP: what Prometheus asks for, and where Airflow sends its own metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from observability import airflow_metrics
from observability.exporter import Exporter, OnlineRows
from plumbline.errors import ServiceUnavailable
from plumbline.metrics import STREAM_SERVER
from plumbline.progress import say
from plumbline.servers import callers, services
from plumbline.settings import settings
from plumbline.state import slots
from products import ALL

PORT = 9102
STREAM_JOB = "order-stream"
"""Prometheus' job of the order stream."""


def targets() -> list[dict[str, Any]]:
    """Each product's predictor that runs, its canary, and the order stream, as Prometheus' HTTP service discovery wants
    to be told of targets. The job is the server's name; what each shows says by itself whose it is."""
    if settings().models is not None:
        return _of_stack()
    jobs = {name: name for product in ALL for name in (product.server, product.canary_server)}
    jobs[STREAM_SERVER] = STREAM_JOB
    found = {job: service for name, job in jobs.items() if (service := services.find(name)) is not None}
    return [
        {"targets": [f"{services.HOST}:{service.port}"], "labels": {"job": name}} for name, service in found.items()
    ]


def _of_stack() -> list[dict[str, Any]]:
    """Where predictors are containers: each side that has something to serve, with the revision that it serves."""
    found = []
    for product in ALL:
        for side, job in zip(slots.SIDES, (product.server, product.canary_server), strict=True):
            if slot := slots.read(product, side):
                labels = {"job": job, "revision": slot.revision}
                found.append({"targets": slots.addresses(product, side), "labels": labels})
    return found


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may say nothing

    def log_message(self, format: str, *args: Any) -> None:
        """No line a scrape: they would fill the disk."""


def server(host: str, port: int, online_rows: OnlineRows | None = None) -> WSGIServer:
    """The server: /metrics; /targets for a Prometheus on this machine; /v1/metrics, where Airflow sends its own."""
    from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    exporter = Exporter(online_rows=online_rows)
    registry.register(exporter)
    shown = make_wsgi_app(registry)

    def app(environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        hosts, origins = ([environ[name]] if name in environ else [] for name in ("HTTP_HOST", "HTTP_ORIGIN"))
        try:
            callers.check(hosts, origins, settings().serving_host_names)
        except callers.Foreign as foreign:
            respond("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{foreign}\n".encode()]
        if environ["PATH_INFO"] == "/targets":
            respond("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(targets()).encode()]
        if environ["PATH_INFO"] == airflow_metrics.PATH:
            respond(exporter.airflow.take(environ), [("Content-Type", "application/x-protobuf")])
            return [b""]
        if environ["PATH_INFO"] != "/metrics":
            respond("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"there are /metrics, /targets and {airflow_metrics.PATH}\n".encode()]
        answer: Iterable[bytes] = shown(environ, respond)
        return answer

    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ServiceUnavailable(f"the exporter cannot listen on {host}:{port}: {error.strerror}; --port") from None


def serve(host: str = services.HOST, port: int = PORT, online_rows: OnlineRows | None = None) -> None:
    """Answers scrapes until SIGTERM or Ctrl-C. Port 0 takes a free one; `online_rows` counts what Redis holds."""
    with server(host, port, online_rows) as serving:
        say(f"metrics on http://{host}:{serving.server_port}/metrics")
        serving.serve_forever()
