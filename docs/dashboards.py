"""`make dashboards`: the boards before, during and after a broken day, into docs/images. About 10 minutes.

Nothing in it is drawn by hand. On the drills' ground (a home of its own, real orders) the real exporter, predictor and
Prometheus run; the next day's orders come with customers missing, the gate at landing stops them, the deadline passes,
the shop mends its orders and the day is run again. Requests and outcomes are simulated, as everywhere.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from time import sleep

from drills import ground, shop_faults
from observability import stack
from observability.grafana import generate
from observability.grafana.answers import Window, answers, panels
from observability.grafana.drawing.draw import bundled, draw
from plumb.demo import demo, simulation, up
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT
from products.churn import CHURN
from toolchain import binaries
from transform import business_kpis as business

IMAGES = ROOT / "docs" / "images"
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
            draw(_prometheus(), "pipeline.json", _window(begun), IMAGES / "dashboard-pipeline-during.png", dark=False)

            mend()
            if not ground.run():
                raise DashboardsError(f"{ground.DAY} did not come in after its orders were mended")
            _wait("the alerts' end", lambda: _shown("Alerts firing") == 0)
            sleep(QUIET)
            _draw("after", begun)
            draw(_prometheus(), "churn.json", _window(begun), IMAGES / "dashboard-light.png", dark=False)


def _draw(when: str, begun: float) -> None:
    draw(
        _prometheus(),
        "churn.json",
        _window(begun),
        IMAGES / f"dashboard-{when}.png",
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
    board = json.loads((generate.FOLDER / "churn.json").read_text())
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
        main()
    except PlumblineError as error:
        raise SystemExit(f"dashboards: {error}") from None
