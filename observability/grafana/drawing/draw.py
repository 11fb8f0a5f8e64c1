"""Pictures of the boards as PNGs: Prometheus' answers, drawn by Grafana's own components in Chromium.

No Grafana server takes part. The packages, by their exact versions in package.json, are fetched once into the cache;
their own dependencies are the newest that fit. Needs node, npm and Chromium on PATH.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from observability.grafana import generate
from observability.grafana.answers import Window, answers, marks
from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.progress import say
from plumbline.settings import settings

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 1520
ASSETS = (f"--loader:.{kind}=dataurl" for kind in ("svg", "png", "woff", "woff2", "ttf"))
BUNDLE = [
    "--bundle",
    "--format=iife",
    "--minify",
    "--jsx=automatic",
    "--define:global=window",
    "--log-level=error",
    *ASSETS,
]


class DrawingError(PlumblineError):
    """A picture cannot be drawn."""


def draw(
    prometheus: str, board: str, window: Window, target: Path, *, dark: bool = True, top: int = 0, row: str = ""
) -> Path:
    """Draws a committed board (`churn/churn.json`) as a PNG; `top` > 0 draws its first so many pixels alone, `row` the
    panels below the row of that title."""
    shown = json.loads((generate.FOLDER / board).read_text())
    if row:
        shown["panels"] = _below(row, shown["panels"])
    picture = {
        "board": shown,
        "answers": answers(prometheus, shown, window),
        "marks": marks(prometheus, shown, window),
        "from": window.start,
        "to": window.end,
        "dark": dark,
        "width": WIDTH,
    }
    script = bundled()
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown["panels"])
    with tempfile.TemporaryDirectory(dir=script.parent) as folder:
        page = Path(folder) / "page.html"
        page.write_text(_page(picture, script))
        _shoot(page, target, WIDTH + 8, top or rows * 38 + 72, Path(folder))
    say(f"{target}")
    return target


def _below(row: str, panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row and its panels, moved to the top."""
    begin = next(place for place, panel in enumerate(panels) if (panel["type"], panel["title"]) == ("row", row))
    rest = (place for place in range(begin + 1, len(panels)) if panels[place]["type"] == "row")
    chosen = panels[begin : next(rest, len(panels))]
    higher = chosen[0]["gridPos"]["y"]
    return [{**panel, "gridPos": {**panel["gridPos"], "y": panel["gridPos"]["y"] - higher}} for panel in chosen]


def bundled() -> Path:
    """The page's script, made anew when what it is made of changed. Raises DrawingError when npm or esbuild fail."""
    sources = [HERE / "package.json", HERE / "page.jsx"]
    digest = files.sha256(*(source.read_bytes() for source in sources))
    folder = settings().cache / "grafana-ui"
    script, stamp = folder / "page.js", folder / "made-of"
    if script.exists() and stamp.exists() and stamp.read_text() == digest:
        return script
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copy(source, folder)
    say("fetching and bundling Grafana's components (minutes, the first time)")
    _run(["npm", "install", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund"], folder)
    production = """--define:process.env.NODE_ENV="production\""""
    _run(["npx", "esbuild", "page.jsx", f"--outfile={script}", production, *BUNDLE], folder)
    files.write_whole(stamp, digest)
    return script


def _page(picture: dict[str, Any], script: Path) -> str:
    given = json.dumps(picture).replace("</", "<\\/")
    return (
        "<!doctype html><html><head><meta charset=utf-8>"
        f"<link rel=stylesheet href={script.with_suffix('.css').as_uri()}></head><body><div id=root></div>"
        f"<script>window.grafanaBootData={{settings:{{}},user:{{}}}};window.PICTURE={given}</script>"
        f"<script src={script.as_uri()}></script></body></html>"
    )


def _shoot(page: Path, target: Path, width: int, height: int, profile: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise DrawingError(f"no browser for the pictures: put one of {', '.join(BROWSERS)} on PATH")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", "--allow-file-access-from-files", f"--user-data-dir={profile}"]
    command += [f"--window-size={width},{height}", "--virtual-time-budget=8000", f"--screenshot={target}"]
    target.unlink(missing_ok=True)
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=180, check=False)
    if done.returncode or not target.exists():
        raise DrawingError(f"{browser} made no picture of {page}: {done.stderr[-500:]}")


def _run(command: Iterable[str], folder: Path) -> None:
    try:
        done = subprocess.run([*command], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError as error:
        raise DrawingError(f"{error.filename} is not on PATH: pictures need node and npm") from None
    if done.returncode:
        raise DrawingError(f"{' '.join(command)} in {folder}: {(done.stderr or done.stdout)[-800:]}")
