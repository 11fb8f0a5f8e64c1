"""What a Prometheus answers to every query of a board: what its panels would show, and its marks on the time axis."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from plumbline.errors import PlumblineError, ServiceUnavailable

POINTS = 300
"""Points of a curve, about one for every two pixels of a panel."""

Series = dict[str, Any]


class QueryError(PlumblineError):
    """Prometheus refused a query."""


@dataclass(frozen=True)
class Window:
    """The time that a board shows, in Unix seconds; `scrape` is how many seconds lie between two scrapes."""

    start: float
    end: float
    scrape: float = 15.0

    @property
    def step(self) -> float:
        """Seconds between two points."""
        return max(self.scrape, math.ceil((self.end - self.start) / POINTS))

    @property
    def rate_interval(self) -> float:
        """Grafana's own rule: a rate needs a few scrapes, and no point may fall between two of them."""
        return max(4 * self.scrape, self.step + self.scrape)


def answers(prometheus: str, board: dict[str, Any], window: Window) -> dict[int, list[list[Series]]]:
    """By panel id: for each of its targets the series that came back, as Prometheus' API gives them.

    Raises QueryError that names the panel, ServiceUnavailable without a Prometheus.
    """
    found: dict[int, list[list[Series]]] = {}
    for panel in panels(board):
        found[panel["id"]] = [_asked(prometheus, panel["title"], target, window) for target in panel["targets"]]
    return found


def marks(prometheus: str, board: dict[str, Any], window: Window) -> list[dict[str, Any]]:
    """The annotations: `at` (Unix seconds, of the first of points in a row), `color` and `name` of each."""
    found = []
    for query in board["annotations"]["list"]:
        before = -math.inf
        for at in sorted(at for one in _asked(prometheus, query["name"], query, window) for at, _ in one["values"]):
            if at - before > 2 * window.step:
                found.append({"at": at, "color": query["iconColor"], "name": query["name"]})
            before = at
    return found


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show data, rows left out."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _asked(prometheus: str, what: str, target: dict[str, Any], window: Window) -> list[Series]:
    expr = target["expr"].replace("$__rate_interval", f"{window.rate_interval:.0f}s")
    if target.get("instant"):
        path, given = "query", {"query": expr, "time": window.end}
    else:
        path, given = "query_range", {"query": expr, "start": window.start, "end": window.end, "step": window.step}
    request = urllib.request.Request(f"{prometheus}/api/v1/{path}", urllib.parse.urlencode(given).encode())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as refused:
        raise QueryError(f"{what}: {expr}: {refused.read().decode(errors='replace')[:300]}") from None
    except OSError as error:
        raise ServiceUnavailable(f"no Prometheus at {prometheus}: {error}") from None
    series: list[Series] = answer["data"]["result"]
    return series
