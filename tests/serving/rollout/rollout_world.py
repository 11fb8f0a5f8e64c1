"""Small upstreams in place of model servers: real processes behind a real Envoy, that answer well or badly.

`python rollout_world.py PORT KIND`: `good`, or `failing` (500 to every other request).
"""

from __future__ import annotations

import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from plumbline.product import Product
from plumbline.servers import services
from plumbline.servers.services import HOST, Launch, Service
from products.churn import CHURN
from serving import launch
from serving.rollout import manifests
from serving.rollout.laptop import Laptop

ROLLOUT = manifests.rollout(manifests.rollout_file(CHURN))
TEMPLATES = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: guardrails}
spec:
  args:
    - {name: canary-service}
    - {name: stable-service}
    - {name: canary-hash}
    - {name: stable-hash}
    - {name: prometheus, value: "http://127.0.0.1:1"}
    - {name: count, value: "3"}
    - {name: failures, value: "1"}
  metrics:
    - name: canary-traffic
      initialDelay: 3500ms
      interval: 500ms
      count: "{{args.count}}"
      failureLimit: "{{args.failures}}"
      consecutiveErrorLimit: "{{args.failures}}"
      successCondition: len(result) > 0 && result[0] >= 1
      provider:
        prometheus:
          address: "{{args.prometheus}}"
          query: sum(increase(istio_requests_total{destination_service_name="{{args.canary-service}}"}[3s]))
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: churn-kpis}
spec:
  args:
    - {name: canary-hash}
    - {name: stable-hash}
    - {name: prometheus, value: "http://127.0.0.1:1"}
    - {name: count, value: "3"}
    - {name: failures, value: "1"}
  metrics:
    - name: error-rate
      initialDelay: 3500ms
      interval: 500ms
      count: "{{args.count}}"
      failureLimit: "{{args.failures}}"
      consecutiveErrorLimit: "{{args.failures}}"
      successCondition: len(result) > 0 && result[0] <= 0.02
      provider:
        prometheus:
          address: "{{args.prometheus}}"
          query: >
            (
              sum(rate(istio_requests_total{destination_service_name="churn-canary",response_code=~"5.."}[3s]))
              or vector(0)
            ) / sum(rate(istio_requests_total{destination_service_name="churn-canary"}[3s]))
"""


@dataclass
class Registry:
    """Who is champion, and the versions that there are; stands in for MLflow, which has tests of its own."""

    champion: str = "1"
    versions: frozenset[str] = frozenset({"1", "2", "3"})
    settled: list[str] = field(default_factory=list)

    def find(self, product: Product, model: str) -> Any:
        version = self.champion if model == "champion" else model
        return SimpleNamespace(version=version) if version in self.versions else None

    def settle(self, product: Product, version: str) -> dict[str, Any]:
        self.settled.append(version)
        self.champion = version
        return {"champion": version}


class SmallLaptop(Laptop):
    """The laptop without a judge: the small templates ask for nothing of it."""

    def _judge(self) -> Service:
        return Service("judge", 0, 1, "", {})


def predictor(name: str, version: str, kind: str) -> Service:
    """A small upstream as the service of that name."""

    def command(port: int, token: str) -> list[str]:
        return [sys.executable, __file__, str(port), kind]

    more = {"model": version, "revision": launch.revision(CHURN, version)}
    ready = lambda port, token: services.answers(f"http://{HOST}:{port}/", 1)  # noqa: E731
    return services.ensure(Launch(name, command, ready, more=lambda: more))


@contextmanager
def callers(url: str, per_second: float = 40.0) -> Iterator[Counter[int]]:
    """Requests one after the other for as long as it is open; status → how many, 0 for no answer."""
    found: Counter[int] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(1 / per_second):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                    found[answer.status] += 1
            except urllib.error.HTTPError as error:
                found[error.code] += 1
            except OSError:
                found[0] += 1

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield found
    finally:
        over.set()
        asking.join(timeout=10)


def written(folder: Path, text: str = TEMPLATES) -> dict[str, Path]:
    """Templates of a test's own, by the names that the shipped Rollout gives them."""
    found = {name: folder / f"{name}.yaml" for name in manifests.templates(CHURN)}
    for path, template in zip(found.values(), text.split("---\n"), strict=True):
        path.write_text(template)
    return found


def main(port: int, kind: str) -> None:
    """Answers until SIGTERM."""
    asked = iter(range(1, sys.maxsize))

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = 500 if kind == "failing" and next(asked) % 2 else 200
            body = kind.encode()
            self.wfile.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Kind: {kind}\r\n\r\n".encode() + body
            )

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    ThreadingHTTPServer((HOST, port), Answers).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
