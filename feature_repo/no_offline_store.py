"""Feast's offline store for whoever reads online alone: each of its reads raises NotImplementedError. No Spark."""

from __future__ import annotations

from feast.infra.offline_stores.offline_store import OfflineStore  # noqa: TID253 (Feast imports this, by its name)
from feast.repo_config import FeastConfigBaseModel  # noqa: TID253


class NoOfflineStore(OfflineStore):  # type: ignore[misc]
    """Feast's own base class, whose methods raise."""


class NoOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """It has no settings."""

    type: str
