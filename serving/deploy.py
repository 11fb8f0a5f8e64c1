"""Who is champion. The first one is made when there is none; a later one by a switch, after a shadow check.

The switch is the laptop's way: all at once. Real traffic goes over by a canary, a share at a time, with a way back
that needs nobody.
"""

from __future__ import annotations

from typing import Any

from plumbline import observed
from plumbline.errors import Conflict
from plumbline.pipeline import gates, leases, stage
from plumbline.product import Product
from plumbline.registry import signing
from plumbline.registry.signing import Untrusted
from plumbline.servers import online_store, services
from plumbline.verdict import Verdict
from serving import launch, shelf
from serving import loaded_model as registry
from serving.errors import ServingError
from serving.rollout import state


def deploy(product: Product, model: str | None = None) -> dict[str, Any]:
    """Makes the challenger champion when there is no champion yet; with `model` (an alias or a number) switches to it.

    Raises Untrusted when the model's signature does not hold, ServingError when there is no such model, nothing is
    materialized, or the shadow check finds against it; Refused when it cannot score; Conflict in mid-rollout.
    """
    with leases.lease(product, "deploy", "deployment"):
        champion = registry.find(product, registry.CHAMPION)
        if champion is None:
            return _recorded(product, registry.CHALLENGER if model is None else model, None)
        if model is None:
            by_canary, at_once = state.command(product, "start"), product.command_of("deploy")
            why = f"there is a champion; `{by_canary}` replaces it by a canary, `{at_once} --model` at once"
            return {"state": "unchanged", "champion": str(champion.version), "why": why}
        if state.driven(product):
            abort, status = (state.command(product, what) for what in ("abort", "status"))
            raise Conflict(f"a rollout is under way: `{abort}` ends it, `{status}` shows it")
        return _recorded(product, model, str(champion.version))


def settle(product: Product, version: str) -> dict[str, Any]:
    """Makes the version champion whose rollout completed, and the champion before it `previous`.

    Who answers is not touched: a rollout has seen to that. Raises Untrusted, ServingError when there is no such model.
    """
    with leases.lease(product, "deploy", "deployment"):
        champion = registry.find(product, registry.CHAMPION)
        return _recorded(product, version, str(champion.version) if champion else None, rolled_out=True)


def _recorded(product: Product, model: str, champion: str | None, rolled_out: bool = False) -> dict[str, Any]:
    found = registry.find(product, model)
    if found is None:
        raise ServingError(registry.missing(product, model))
    if champion == str(found.version):
        return {"state": "unchanged", "champion": champion, "why": f"version {champion} is champion already"}
    tags = {"data_version": found.tags.get("data_version"), "release_id": found.tags.get("release_id")}
    head = {"stage": "deploy", "run_id": f"deploy-{product.model}-{found.version}", **tags}
    back = model == registry.PREVIOUS
    version, audit = str(found.version), gates.Audit(head["run_id"])

    def gated() -> dict[str, Any]:
        _trusted(product, version, audit)
        if rolled_out:
            done = _settled(product, version, champion)
        else:
            done = _first(product, version) if champion is None else _switch(product, version, champion, back)
        return {**done, **audit.told()}

    return {"state": "done", **stage.recorded(product, head, gated, on_failure=audit.told)}


def _trusted(product: Product, version: str, audit: gates.Audit) -> None:
    """The gate: nothing of a model is deployed that would not be loaded. Raises Untrusted; aliases stay as they are."""
    try:
        registry.load(product, version)
    except Untrusted as refused:
        gates.record(audit, Verdict(signing.GATE, passed=False, expectations=1, failed=(str(refused),)), None)
        raise
    gates.record(audit, Verdict(signing.GATE, passed=True, expectations=1), None)


def _tried(product: Product, version: str) -> dict[str, Any]:
    """One that is online, scored by a model that takes over without another to compare it with."""
    if online := online_store.online(online_store.client(), product):
        observed.read(product.online, online[0])
    tried: dict[str, Any] = shelf.shadow(product).tried(version)
    return tried


def _first(product: Product, version: str) -> dict[str, Any]:
    tried = _tried(product, version)
    registry.client().set_registered_model_alias(product.model, registry.CHAMPION, version)
    observed.wrote(product.champion, version)
    return {
        "message": f"version {version} is champion, tried on {shelf.shadow(product).in_words(tried)}",
        "champion": version,
        "tried": tried,
    }


def _settled(product: Product, version: str, champion: str | None) -> dict[str, Any]:
    client = registry.client()
    if champion is not None:
        client.set_registered_model_alias(product.model, registry.PREVIOUS, champion)
    client.set_registered_model_alias(product.model, registry.CHAMPION, version)
    observed.wrote(product.champion, version)
    told = f", version {champion} is previous" if champion else ""
    return {"message": f"version {version} is champion after its rollout{told}", "champion": version}


def _switch(product: Product, version: str, champion: str, back: bool) -> dict[str, Any]:
    """The aliases move only after the check; going back is not held up by what the newer features miss.

    A champion whose signature does not hold any more is nothing to compare with, and never becomes `previous`.
    """
    client = registry.client()
    try:
        registry.load(product, champion)
    except Untrusted as refused:
        compared = {"tried": _tried(product, version), "champion_refused": str(refused)}
        message = f"version {version} is champion; version {champion}, which was, is not trusted any more"
    else:
        compared = {registry.PREVIOUS: champion, **shelf.shadow(product).compare(version, champion, strict=not back)}
        client.set_registered_model_alias(product.model, registry.PREVIOUS, champion)
        message = f"version {version} is champion, version {champion} is previous"
    client.set_registered_model_alias(product.model, registry.CHAMPION, version)
    observed.wrote(product.champion, version)
    if services.find(product.server) is not None:
        launch.ensure(product)
        message += "; the predictor was started again with it"
    return {"message": message, "champion": version, **compared}
