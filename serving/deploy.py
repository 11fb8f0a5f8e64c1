"""Who is champion. The first one is made when there is none; a later one by a switch, after a shadow check.

The switch is the laptop's way: all at once. Real traffic goes over by a canary, a share at a time, with a way back
that needs nobody.
"""

from __future__ import annotations

from typing import Any

from plumbline import services, stage
from serving import launch, registry, shadow
from serving.errors import ServingError

PRODUCT = "churn"


def deploy(model: str | None = None) -> dict[str, Any]:
    """Makes the challenger champion when there is no champion yet; with `model` (an alias or a number) switches to it.

    Raises ServingError when there is no such model, nothing is materialized, or the shadow check finds against it;
    Refused when it cannot score.
    """
    with stage.lease(PRODUCT, "deploy", "deployment"):
        champion = registry.find(registry.CHAMPION)
        if champion is None:
            return _recorded(registry.CHALLENGER if model is None else model, None)
        if model is None:
            why = "there is a champion; `plumb deploy --model challenger` replaces it at once, a canary bit by bit"
            return {"state": "unchanged", "champion": str(champion.version), "why": why}
        return _recorded(model, str(champion.version))


def _recorded(model: str, champion: str | None) -> dict[str, Any]:
    found = registry.find(model)
    if found is None:
        raise ServingError(f"{registry.NAME} has no {model} to deploy: run `plumb train`, then `plumb register`")
    if champion == str(found.version):
        return {"state": "unchanged", "champion": champion, "why": f"version {champion} is champion already"}
    tags = {"data_version": found.tags.get("data_version"), "release_id": found.tags.get("release_id")}
    head = {"stage": "deploy", "run_id": f"deploy-{registry.NAME}-{found.version}", **tags}
    back = model == registry.PREVIOUS
    work = (
        (lambda: _first(str(found.version)))
        if champion is None
        else lambda: _switch(str(found.version), champion, back)
    )
    return {"state": "done", **stage.recorded(PRODUCT, head, work)}


def _first(version: str) -> dict[str, Any]:
    from serving.scorer import Scorer

    customer = shadow.customers(most=1)[0]
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


def _switch(version: str, champion: str, back: bool) -> dict[str, Any]:
    """The aliases move only after the check; going back is not held up by what the newer features miss."""
    compared = shadow.compare(version, champion, strict=not back)
    client = registry.client()
    client.set_registered_model_alias(registry.NAME, registry.PREVIOUS, champion)
    client.set_registered_model_alias(registry.NAME, registry.CHAMPION, version)
    message = f"version {version} is champion, version {champion} is previous"
    if services.find(launch.NAME) is not None:
        launch.ensure()
        message += "; the predictor was started again with it"
    return {"message": message, "champion": version, registry.PREVIOUS: champion, **compared}
