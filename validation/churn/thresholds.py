"""The limits of the gates that compare, read from thresholds.yaml, where each stands with its reason."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from plumbline import shop
from plumbline.errors import SettingsError

FILE = Path(__file__).with_suffix(".yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(_Strict):
    """A limit, the most extreme real value (and its day), and why the limit is where it is."""

    value: float
    worst_real: float
    seen: date | Literal["never"]
    why: str


class OrdersVolume(_Strict):
    lowest_share: Threshold
    highest_share: Threshold
    fewest_expected: Threshold


class OrdersRepeated(_Strict):
    share: Threshold
    fewest_orders: Threshold


class NullRatio(_Strict):
    orders_increase: Threshold
    features_increase_day: Threshold
    features_increase_week: Threshold


class OrdersShift(_Strict):
    ks: Threshold
    fewest_orders: Threshold
    psi: Threshold
    psi_fewest_orders: Threshold


class FeaturesShift(_Strict):
    lowest_rows: Threshold
    psi_day: Threshold
    psi_week: Threshold
    youngest_shop_days: Threshold
    fewest_customers: Threshold


class OrdersReconciled(_Strict):
    without_event: Threshold
    without_order: Threshold
    differing: Threshold
    fewest_compared: Threshold


class Thresholds(_Strict):
    """All limits, by gate."""

    orders_volume: OrdersVolume
    orders_repeated: OrdersRepeated
    null_ratio: NullRatio
    orders_shift: OrdersShift
    features_shift: FeaturesShift
    orders_reconciled: OrdersReconciled


def load(path: Path | None = None) -> Thresholds:
    """The limits in a file, by default the shop's. Raises SettingsError that names each entry that is wrong."""
    return _read(path or shop.own(FILE.name, FILE))


def place() -> str:
    """The file of the shop's limits, for messages."""
    return shop.own_name(FILE.name, FILE)


@cache
def _read(path: Path) -> Thresholds:
    """The limits in a file. Raises SettingsError that names each entry that is not as it must be."""
    import yaml

    try:
        return Thresholds.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        raise SettingsError(f"{path}: " + "; ".join(wrong)) from None
