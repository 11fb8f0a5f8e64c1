"""The real predictor of the made-up home, once for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.servers import services
from products.churn import CHURN
from serving import launch
from serving.deploy import deploy
from tests.serving.predictor_asker import Asker


@pytest.fixture(scope="module")
def predictor(serving_home: Path) -> Iterator[Asker]:
    """Deployed and answering; a module that asks it uses `_home_settings`."""
    deploy(CHURN)
    asker = Asker(launch.ensure(CHURN))
    yield asker
    asker.channel.close()
    services.stop("predictor")
