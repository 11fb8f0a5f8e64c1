"""The first champion. Every later one is made by a rollout that completed, never here."""

from __future__ import annotations

from typing import Any

from plumbline import lake, online_store, releases, stage
from serving import registry
from serving.errors import ServingError

PRODUCT = "churn"


def deploy_first() -> dict[str, Any]:
    """Makes the challenger champion when there is no champion, after it scored a materialized customer.

    Raises ServingError when there is no challenger or nothing is materialized, Refused when it cannot score.
    """
    with stage.lease(PRODUCT, "deploy", "deployment"):
        champion = registry.find(registry.CHAMPION)
        if champion is not None:
            why = "there is a champion; the next one is made by a rollout that completed"
            return {"state": "unchanged", "champion": str(champion.version), "why": why}
        challenger = registry.find(registry.CHALLENGER)
        if challenger is None:
            raise ServingError(f"{registry.NAME} has no challenger to deploy: run `plumb train`, then `plumb register`")
        tags = {"data_version": challenger.tags.get("data_version"), "release_id": challenger.tags.get("release_id")}
        head = {"stage": "deploy", "run_id": f"deploy-{registry.NAME}-{challenger.version}", **tags}
        return {"state": "done", **stage.recorded(PRODUCT, head, lambda: _deploy(str(challenger.version)))}


def _deploy(version: str) -> dict[str, Any]:
    from serving.scorer import Scorer

    customer = _customer()
    tried = Scorer(version).score([customer]).predictions[0]
    registry.client().set_registered_model_alias(registry.NAME, registry.CHAMPION, version)
    return {
        "message": f"version {version} is champion, tried on customer {customer}: {tried.probability:.3f}",
        "champion": version,
        "tried": {
            "customer_id": tried.row.customer_id,
            "churn_probability": tried.probability,
            "release_id": tried.row.release_id,
        },
    }


def _customer() -> int:
    """A customer of the release that is online: the first in the rows that end where the online ones do."""
    import pyarrow.compute as pc

    found = online_store.online(online_store.client())
    if found is None:
        raise ServingError("nothing is materialized: run `plumb materialize` before the first deployment")
    release_id, newest = found
    release = releases.required(PRODUCT, release_id)
    table = lake.open_table("features.customers", release.version("features.customers")).to_pyarrow_dataset()
    row = table.head(1, columns=["customer_id"], filter=pc.field("event_time") == newest)
    if not row.num_rows:
        raise ServingError(f"release {release.release_id} has no features.customers rows of {newest:%F %T} UTC")
    return int(row["customer_id"][0].as_py())
