"""The page of the shop that a home serves: what differs from shop to shop and is no contract. Data only.

`PLUMBLINE_SHOP_FOLDER` names a folder with `shop.yaml`. Beside it may lie `contracts/`, `thresholds.yaml` and
`leakage.yaml`: what stands there counts in place of the repository's.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plumbline.errors import SettingsError
from plumbline.settings import ROOT, settings

FILE = "shop.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expected(_Strict):
    """Ranges of `total_cents`, read off the shop's own orders, with how they were."""

    mean_cents: tuple[int, int]
    stdev_cents: tuple[int, int]
    new_mean_cents: tuple[int, int]
    paid_share: float = Field(ge=0, le=1)
    why: str


class Model(_Strict):
    """Parameters of the trees (xgboost's names), and the sign of what a feature can honestly do to churn."""

    rounds: int = 150
    max_depth: int = 4
    learning_rate: float = 0.05
    min_child_weight: float = 100.0
    subsample: float = 0.8
    colsample_bytree: float = 0.8
    reg_lambda: float = 5.0
    seed: int
    monotone: dict[str, Literal[-1, 1]]
    why: str


class Shop(_Strict):
    """One shop. `loader` names what loads its packaged data (`module:function`); "" for a shop that has its own.
    `database` says where to: SQLite in the home, or what PLUMBLINE_SHOP_URL names.

    `horizon_days`: who does not order in so many days has churned. `first_day` is where Airflow's days begin.
    """

    name: str
    about: str
    simulated: bool
    loader: str = ""
    database: Literal["home", "url"] = "url"
    first_day: date
    horizon_days: int = Field(ge=1)
    why_horizon: str
    expected: Expected | None = None
    model: Model


def page() -> Shop:
    """The page of the shop that this home serves. Raises SettingsError that names file and entry."""
    return _read(settings().shop_folder / FILE)


def loading() -> str:
    """How orders get into an empty shop, for messages; "" for a shop that brings its own."""
    return f": `plumb shop load` loads those of {page().name}" if page().loader else ""


def own(name: str, default: Path) -> Path:
    """A file of the shop's folder, or the repository's where the shop has none of that name."""
    path = settings().shop_folder / name
    return path if path.exists() else default


def own_name(name: str, default: Path) -> str:
    """The same for messages: below the repository by its place there."""
    path = own(name, default)
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


@cache
def _read(path: Path) -> Shop:
    import yaml

    try:
        return Shop.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise SettingsError(f"PLUMBLINE_SHOP_FOLDER: there is no {path}: name a folder with a shop's page") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise SettingsError(f"{path}: " + "; ".join(wrong)) from None
