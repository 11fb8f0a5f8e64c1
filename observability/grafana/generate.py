"""The dashboards as JSON, in Grafana's classic schema: what is committed, and whether it still is what the code gives.

A dashboard depends on the contracts and the code alone, so the same of both gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.grafana.answers_board import answers_board
from observability.grafana.churn.business import business
from observability.grafana.churn.stream import stream
from observability.grafana.images.pictures import asked, pictures
from observability.grafana.pipeline_board import pipeline_board
from plumbline import files
from plumbline.settings import ROOT
from products.churn import CHURN
from products.images import IMAGES

FOLDER = Path(__file__).parent / "dashboards"
BOARDS: dict[str, Callable[[], dashboard.Dashboard]] = {
    "churn/churn.json": lambda: answers_board(
        CHURN, "data, model, business", ("roc_auc", "log_loss", "brier"), business()
    ),
    "churn/pipeline.json": lambda: pipeline_board(CHURN, stream()),
    "images/images.json": lambda: answers_board(IMAGES, "data, model", ("accuracy", "log_loss"), asked()),
    "images/images-pipeline.json": lambda: pipeline_board(IMAGES, pictures()),
}
"""Each board by its path. File names are told apart without their folder: a cluster's Grafana reads them from one."""


def rendered() -> dict[Path, str]:
    """Each committed file and what should stand in it."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    made = {}
    for name, board in BOARDS.items():
        built = board().build()
        for number, panel in enumerate(built.panels or [], start=1):
            panel.id_val = number
        made[FOLDER / name] = encoder.encode(built) + "\n"
    return made


def write() -> list[Path]:
    """Writes all of them; their paths."""
    made = rendered()
    for path, text in made.items():
        files.write_whole(path, text)
    return list(made)


def stale() -> list[str]:
    """Of the committed files, those that are not what the code gives, from the repository's root."""
    return [
        str(path.relative_to(ROOT))
        for path, text in rendered().items()
        if not path.exists() or path.read_text() != text
    ]
