"""Who is champion. The first one is made when there is none; a later one by a switch, after a shadow check.

The switch is the laptop's way: all at once. Real traffic goes over by a canary, a share at a time, with a way back
that needs nobody.
"""

from __future__ import annotations

from typing import Any

from plumbline import observed
from plumbline.errors import Conflict
from plumbline.pipeline import gates, leases, stage
from plumbline.registry import signing
from plumbline.registry.signing import Untrusted
from plumbline.servers import online_store, services
from plumbline.verdict import Verdict
from products.churn import CHURN
from serving import launch
from serving import loaded_model as registry
from serving.churn import shadow
from serving.errors import ServingError
from serving.rollout import state

PRODUCT = CHURN.name


def deploy(model: str | None = None) -> dict[str, Any]:
    """Makes the challenger champion when there is no champion yet; with `model` (an alias or a number) switches to it.

    Raises Untrusted when the model's signature does not hold, ServingError when there is no such model, nothing is
    materialized, or the shadow check finds against it; Refused when it cannot score; Conflict in mid-rollout.
    """
    with leases.lease(CHURN, "deploy", "deployment"):
        champion = registry.find(registry.CHAMPION)
        if champion is None:
            return _recorded(registry.CHALLENGER if model is None else model, None)
        if model is None:
            why = "there is a champion; `plumb rollout start` replaces it by a canary, `plumb deploy --model` at once"
            return {"state": "unchanged", "champion": str(champion.version), "why": why}
        if state.driven():
            raise Conflict("a rollout is under way: `plumb rollout abort` ends it, `plumb rollout status` shows it")
        return _recorded(model, str(champion.version))


def settle(version: str) -> dict[str, Any]:
    """Makes the version champion whose rollout completed, and the champion before it `previous`.

    Who answers is not touched: a rollout has seen to that. Raises Untrusted, ServingError when there is no such model.
    """
    with leases.lease(CHURN, "deploy", "deployment"):
        champion = registry.find(registry.CHAMPION)
        return _recorded(version, str(champion.version) if champion else None, rolled_out=True)


def _recorded(model: str, champion: str | None, rolled_out: bool = False) -> dict[str, Any]:
    found = registry.find(model)
    if found is None:
        raise ServingError(f"{registry.NAME} has no {model} to deploy: run `plumb train`, then `plumb register`")
    if champion == str(found.version):
        return {"state": "unchanged", "champion": champion, "why": f"version {champion} is champion already"}
    tags = {"data_version": found.tags.get("data_version"), "release_id": found.tags.get("release_id")}
    head = {"stage": "deploy", "run_id": f"deploy-{registry.NAME}-{found.version}", **tags}
    back = model == registry.PREVIOUS
    version, audit = str(found.version), gates.Audit(head["run_id"])

    def gated() -> dict[str, Any]:
        _trusted(version, audit)
        if rolled_out:
            done = _settled(version, champion)
        else:
            done = _first(version) if champion is None else _switch(version, champion, back)
        return {**done, **audit.told()}

    return {"state": "done", **stage.recorded(CHURN, head, gated, on_failure=audit.told)}


def _trusted(version: str, audit: gates.Audit) -> None:
    """The gate: nothing of a model is deployed that would not be loaded. Raises Untrusted; aliases stay as they are."""
    try:
        registry.load(version)
    except Untrusted as refused:
        gates.record(audit, Verdict(signing.GATE, passed=False, expectations=1, failed=(str(refused),)), None)
        raise
    gates.record(audit, Verdict(signing.GATE, passed=True, expectations=1), None)


def _tried(version: str) -> dict[str, Any]:
    """One real customer scored by a model that takes over without another to compare it with."""
    from serving.churn.scorer import Scorer

    if online := online_store.online(online_store.client(), CHURN):
        observed.read(CHURN.online, online[0])
    customer = shadow.customers(most=1)[0]
    tried = Scorer(version).score([customer]).predictions[0]
    return {
        "customer_id": tried.row.customer_id,
        "churn_probability": tried.probability,
        "release_id": tried.row.release_id,
    }


def _first(version: str) -> dict[str, Any]:
    tried = _tried(version)
    registry.client().set_registered_model_alias(registry.NAME, registry.CHAMPION, version)
    observed.wrote(CHURN.champion, version)
    told = f"customer {tried['customer_id']}: {tried['churn_probability']:.3f}"
    return {
        "message": f"version {version} is champion, tried on {told}",
        "champion": version,
        "tried": tried,
    }


def _settled(version: str, champion: str | None) -> dict[str, Any]:
    client = registry.client()
    if champion is not None:
        client.set_registered_model_alias(registry.NAME, registry.PREVIOUS, champion)
    client.set_registered_model_alias(registry.NAME, registry.CHAMPION, version)
    observed.wrote(CHURN.champion, version)
    told = f", version {champion} is previous" if champion else ""
    return {"message": f"version {version} is champion after its rollout{told}", "champion": version}


def _switch(version: str, champion: str, back: bool) -> dict[str, Any]:
    """The aliases move only after the check; going back is not held up by what the newer features miss.

    A champion whose signature does not hold any more is nothing to compare with, and never becomes `previous`.
    """
    client = registry.client()
    try:
        registry.load(champion)
    except Untrusted as refused:
        compared = {"tried": _tried(version), "champion_refused": str(refused)}
        message = f"version {version} is champion; version {champion}, which was, is not trusted any more"
    else:
        compared = {registry.PREVIOUS: champion, **shadow.compare(version, champion, strict=not back)}
        client.set_registered_model_alias(registry.NAME, registry.PREVIOUS, champion)
        message = f"version {version} is champion, version {champion} is previous"
    client.set_registered_model_alias(registry.NAME, registry.CHAMPION, version)
    observed.wrote(CHURN.champion, version)
    if services.find(launch.NAME) is not None:
        launch.ensure()
        message += "; the predictor was started again with it"
    return {"message": message, "champion": version, **compared}
