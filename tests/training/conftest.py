"""A home with a small made-up shop in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plumbline.settings import settings
from plumbline.state.trainings import Place
from products.churn import CHURN
from tests.training.churn import made_up_shop
from training.churn import split
from validation import leakage


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], dict[str, Any]]]:
    """A home with a lake, shared by a module; calling it publishes the next release with its dataset, judged."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("training")))
    patch.setenv("PLUMBLINE_NOW", "1998-07-01T00:00:00Z")
    settings.cache_clear()
    orders = made_up_shop.simulate_orders(700)
    made_up_shop.write_lake(orders, split.choose(made_up_shop.WEEKLY, made_up_shop.AS_OF).days)

    def release(release_id: int) -> dict[str, Any]:
        made_up_shop.publish(release_id)
        about = made_up_shop.write_dataset(release_id, orders)
        leakage.check(Place(CHURN, release_id))
        return about

    yield release
    patch.undo()
    settings.cache_clear()


@pytest.fixture
def shop_home(shop: object) -> Path:
    """The home that the module's shop lives in."""
    return settings().home
