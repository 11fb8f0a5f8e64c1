"""`make docs`: the README's picture of the flow and the screenshots in docs/images, from a finished demo and canaries.

Everything shown is what the demo in this home left: nothing is drawn by hand. Screenshots need Chromium or Chrome on
PATH; without one the flow is written and the rest says so.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from plumb.demo import up
from plumb.reports import flow, report, report_page
from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT, settings
from products.churn import CHURN
from serving.rollout import page as rollout_page
from serving.rollout import state as rollout_state

IMAGES = ROOT / "docs" / "images"
FLOW = re.compile(r"(?<=<!-- flow: made by `make docs` -->\n).*?(?=\n<!-- end of flow -->)", re.DOTALL)
ASSISTANT = 440
"""Pixels that a panel of MLflow's own takes on the right of its pages."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class DocsError(PlumblineError):
    """A picture cannot be made."""


def main() -> None:
    """Makes all of them."""
    readme = ROOT / "README.md"
    drawn = f"```mermaid\n{flow.mermaid(CHURN)}\n```"
    files.write_whole(readme, FLOW.sub(lambda _: drawn, readme.read_text()))
    say("the flow is in README.md")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise DocsError(f"no browser for the screenshots: put one of {', '.join(BROWSERS)} on PATH")
    IMAGES.mkdir(exist_ok=True)
    newest = report_page.write(CHURN).parent / report_page.runs(CHURN)[-1].file
    shoot(browser, newest.as_uri(), "report-light", 1280, 1700)
    shoot(browser, newest.as_uri(), "report-dark", 1280, 1700, dark=True)
    shoot(browser, newest.as_uri(), "report-narrow", 420, 1700)
    with _terminal() as page:
        shoot(browser, page.as_uri(), "demo", 1500, 1500)
    if rollout_state.keys(CHURN):
        shoot(browser, rollout_page.write(CHURN).as_uri(), "rollouts", 1280, 1700)
    else:
        say("no rollouts.png: no canary was rolled out in this home: `make demo-canary`")
    before = services.running()
    try:
        pages = services.ensure(replace(up._mlflow(), name="mlflow-pictured", command=_without_login))
        address = f"http://{services.HOST}:{pages.port}/#/models/{CHURN.model}"
        shoot(browser, address, "mlflow", 1280 + ASSISTANT, 900)
        _cut("mlflow", 1280, 900)
    finally:
        services.stop_all(keep=before)


def _without_login(port: int, token: str) -> list[str]:
    """MLflow's pages for the time of a picture: a headless browser cannot log in."""
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", services.HOST, "--port", str(port)]


def shoot(browser: str, url: str, name: str, width: int, height: int, *, dark: bool = False) -> None:
    """A screenshot as docs/images/<name>.png, light unless `dark`. Raises DocsError with the browser's own words."""
    target = IMAGES / f"{name}.png"
    with tempfile.TemporaryDirectory(dir=settings().home) as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-quic", f"--user-data-dir={profile}"]
        command += [f"--window-size={width},{height}", "--virtual-time-budget=8000", f"--screenshot={target}"]
        command += ["--blink-settings=preferredColorScheme=0"] if dark else []
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or not target.exists():
        raise DocsError(f"{browser} made no picture of {url}: {done.stderr[-500:]}")
    say(f"{target.relative_to(ROOT)}")


def _cut(name: str, width: int, height: int) -> None:
    from PIL import Image

    path = IMAGES / f"{name}.png"
    with Image.open(path) as whole:
        whole.crop((0, 0, width, height)).save(path)


@contextmanager
def _terminal() -> Iterator[Path]:
    """The demo's closing summary as a terminal shows it, in a page."""
    from rich.console import Console

    path = settings().home / "report" / CHURN.name / "summary.json"
    if not path.exists():
        raise DocsError("no demo was run in this home: `make demo`")
    summary = json.loads(_unplaced(path.read_text()))
    console = Console(record=True, width=150, highlight=False, file=io.StringIO())
    report.tell(summary, console)
    page = settings().home / "tmp" / "terminal.html"
    page.write_text(_unplaced(console.export_html(inline_styles=True)))
    yield page
    page.unlink()


def _unplaced(text: str) -> str:
    """Without the folders of the machine that made it."""
    return text.replace(str(settings().home), ".plumbline").replace(f"{settings().plumb_command}", "plumb")


if __name__ == "__main__":
    try:
        main()
    except PlumblineError as error:
        raise SystemExit(f"docs: {error}") from None
