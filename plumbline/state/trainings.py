"""What training leaves of a release: `training/<product>/<place>/<name>`; a place is named by its release and more.

Plots are no state: they lie in the home's folder of the same name, and MLflow has them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from plumbline.product import Product
from plumbline.state import objects, releases

ABOUT, ROWS, RUN = "dataset.json", "dataset.parquet", "run.json"
LEAKAGE, LINEAGE = "leakage.json", "lineage.json"


@dataclass(frozen=True)
class Place:
    """One dataset of a release, and the training on it.

    `service` and `cutoff` are None where they are what a release's dataset has without being asked; `leaky` is the
    twin, whose ledger entries are no part of the release's run.
    """

    product: Product
    release_id: int
    service: str | None = None
    cutoff: date | None = None
    leaky: bool = False

    @property
    def name(self) -> str:
        """Its folder, as in `7`, `7-leaky` or `7-images_v2-2026-11-20`."""
        parts = (self.service, self.cutoff, "leaky" if self.leaky else None)
        return "-".join(str(part) for part in (self.release_id, *parts) if part)

    def key(self, name: str) -> str:
        """The key of an object that says something of the dataset or its training."""
        return key(self.product.name, self.name, name)

    @property
    def where(self) -> str:
        """The folder, or its URL, for messages."""
        return folder(self.product.name, self.name)

    @property
    def options(self) -> tuple[str, ...]:
        """What a command is given to work on this dataset."""
        service = ("--service", self.service) if self.service else ()
        cutoff = ("--cutoff", str(self.cutoff)) if self.cutoff else ()
        return ("--release", str(self.release_id), *service, *cutoff, *(("--leaky",) if self.leaky else ()))

    def command(self, stage: str) -> str:
        """What a person types to run a stage on it."""
        return f"{self.product.command_of(stage)} {' '.join(self.options)}"

    def head(self, stage: str) -> dict[str, Any]:
        """What the ledger's events of a stage on it begin with."""
        of = {"twin_of": self.release_id} if self.leaky else {"release_id": self.release_id}
        return {"run_id": f"{self.product.name}-training-{self.name}", "stage": stage, **of}


def place(product: Product, release: int | None = None, *, leaky: bool = False) -> Place:
    """The place of a release's dataset (default: the release in force). Raises ReleaseError when there is none."""
    return Place(product, releases.required(product.name, release).release_id, leaky=leaky)


def key(product: str, place: int | str, name: str) -> str:
    """The key of one of these objects."""
    return f"training/{product}/{place}/{name}"


def folder(product: str, place: int | str) -> str:
    """The folder of all of a place's, or its URL, for messages."""
    return objects.where(key(product, place, ROWS)).removesuffix(f"/{ROWS}")


def datasets(product: str) -> dict[str, dict[str, Any]]:
    """Place → what its dataset.json says."""
    keys = [each for each in objects.keys(f"training/{product}") if each.endswith(f"/{ABOUT}")]
    return {each.split("/")[-2]: objects.read_json(each) or {} for each in keys}
