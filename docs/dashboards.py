"""`make dashboards`: the boards before, during and after a broken day, into docs/images. About 10 minutes.

Nothing in it is drawn by hand. On the drills' ground (a home of its own, real orders) the real exporter, predictor and
Prometheus run; the next day's orders come with customers missing, the gate at landing stops them, the deadline passes,
the shop mends its orders and the day is run again. Requests and outcomes are simulated, as everywhere.

`python -m docs.dashboards images` draws the board of images over the home in use, after `make demo-images`;
`python -m docs.dashboards stream` the row of the order stream, while `plumb events run` runs there and events come.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from time import sleep
from typing import Any

from drills import ground, shop_faults
from observability import stack
from observability.grafana import generate
from observability.grafana.answers import Window, answers, panels
from observability.grafana.drawing.draw import bundled, draw
from plumb.demo import demo, simulation, up
from plumb.demo.images import asked
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT
from products.churn import CHURN
from products.images import IMAGES
from serving import client
from toolchain import binaries
from transform import business_kpis as business

PICTURES = ROOT / "docs" / "images"
SCRAPE = 2.0
QUIET = 60.0
"""Seconds that each state is watched for before it is drawn."""

TOP = 740
"""Pixels of a picture that shows what one sees first."""


class DashboardsError(PlumblineError):
    """The broken day did not go as it must."""


def main() -> None:
    """Plays the day and draws."""
    if binaries.missing():
        raise DashboardsError(binaries.HOW)
    bundled()
    with ground.taken() as folder:
        ground.reset(folder, "dashboards")
        up.up()
        stack.up(stack.Pace(interval=f"{SCRAPE:.0f}s"))
        simulation.traffic(300)
        simulation.outcomes(CHURN)
        business.kpis()
        begun = clock.wall().timestamp()
        with simulation.callers():
            sleep(QUIET)
            _draw("before", begun)

            ground.day_comes(ground.DAY)
            mend = shop_faults.null_ids()
            if ground.run():
                raise DashboardsError(f"orders of {ground.DAY} without a customer were let through")
        demo.set_clock(clock.end_of(ground.DAY) + timedelta(minutes=10))
        services.stop("predictor")  # its clock is that of its start: features of the new day would lie in its future
        up.up()
        with simulation.callers():
            _wait("the alerts", lambda: _shown("Alerts firing") >= 1)
            sleep(QUIET)
            _draw("during", begun)
            pipeline = PICTURES / "dashboard-pipeline-during.png"
            draw(_prometheus(), "churn/pipeline.json", _window(begun), pipeline, dark=False)

            mend()
            if not ground.run():
                raise DashboardsError(f"{ground.DAY} did not come in after its orders were mended")
            _wait("the alerts' end", lambda: _shown("Alerts firing") == 0)
            sleep(QUIET)
            _draw("after", begun)
            draw(_prometheus(), "churn/churn.json", _window(begun), PICTURES / "dashboard-light.png", dark=False)


def images() -> None:
    """Asks the home's image predictor by id, by bytes, and for what it must refuse, and draws."""
    bundled()
    stack.up(stack.Pace(interval=f"{SCRAPE:.0f}s"))
    up.predictor(IMAGES)
    begun, pictures = clock.wall().timestamp(), asked(50)
    instances: list[dict[str, Any]] = [{"image_id": image} for image in pictures]
    instances += [{"image": {"b64": base64.b64encode(content).decode()}} for content in [*pictures.values()][:20]]
    instances += [{"image": {"b64": base64.b64encode(b"no picture").decode()}}, {"image_id": "0" * 32}]
    while clock.wall().timestamp() < begun + 2 * QUIET:
        for instance in instances:
            client.predict(IMAGES, [instance])
            sleep(0.02)
    draw(_prometheus(), "images/images.json", _window(begun), PICTURES / "dashboard-images.png")


def stream() -> None:
    """Draws the last four minutes of the home's order stream."""
    now, picture = clock.wall().timestamp(), PICTURES / "dashboard-stream.png"
    draw(_prometheus(), "churn/pipeline.json", Window(now - 4 * QUIET, now, SCRAPE), picture, row="Order stream")


def _draw(when: str, begun: float) -> None:
    draw(
        _prometheus(),
        "churn/churn.json",
        _window(begun),
        PICTURES / f"dashboard-{when}.png",
        top=0 if when == "during" else TOP,
    )


def _window(begun: float) -> Window:
    return Window(begun, clock.wall().timestamp(), SCRAPE)


def _prometheus() -> str:
    found = services.find(stack.PROMETHEUS)
    if found is None:
        raise DashboardsError("Prometheus does not run: `make binaries` gets it")
    return f"http://{services.HOST}:{found.port}"


def _shown(title: str) -> float:
    """The number that a panel of the first board shows now."""
    board = json.loads((generate.FOLDER / "churn/churn.json").read_text())
    board["panels"] = [panel for panel in panels(board) if panel["title"] == title]
    now = clock.wall().timestamp()
    ((series,),) = answers(_prometheus(), board, Window(now - 60, now, SCRAPE)).values()
    return float(series[0]["value"][1])


def _wait(what: str, seen: Callable[[], bool], seconds: float = 120.0) -> None:
    begun = clock.monotonic()
    while not seen():
        if clock.monotonic() - begun > seconds:
            raise DashboardsError(f"{what} did not come within {seconds:.0f} s")
        sleep(1)
    say(f"{what}: after {clock.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    try:
        {"images": images, "stream": stream}.get("".join(sys.argv[1:]), main)()
    except PlumblineError as error:
        raise SystemExit(f"dashboards: {error}") from None
