"""What training leaves of a release: `training/<product>/<release>/<name>`; a leaky twin's release is `<number>-leaky`.

Plots are no state: they lie in the home's folder of the same name, and MLflow has them too.
"""

from __future__ import annotations

from typing import Any

from plumbline.state import objects

ABOUT, ROWS, RUN = "dataset.json", "dataset.parquet", "run.json"
LEAKAGE, LINEAGE = "leakage.json", "lineage.json"


def key(product: str, release: int | str, name: str) -> str:
    """The key of one of these objects."""
    return f"training/{product}/{release}/{name}"


def folder(product: str, release: int | str) -> str:
    """The folder of all of a release's, or its URL, for messages."""
    return objects.where(key(product, release, ROWS)).removesuffix(f"/{ROWS}")


def datasets(product: str) -> dict[str, dict[str, Any]]:
    """Release → what its dataset.json says."""
    keys = [each for each in objects.keys(f"training/{product}") if each.endswith(f"/{ABOUT}")]
    return {each.split("/")[-2]: objects.read_json(each) or {} for each in keys}
