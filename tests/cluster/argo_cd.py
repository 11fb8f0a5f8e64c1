"""Argo CD's part in a canary, imitated: a sync that respects `ignoreDifferences`, and an apply that does not.

With `RespectIgnoreDifferences` Argo CD takes the ignored fields of what it applies from the live object. Which these
are is read from the Application in k8s/apps; one that this imitation does not know fails the test.
"""

from __future__ import annotations

import copy

from kube import Kube, Object

from toolchain.manifests import applications

MANAGER = "argocd-controller"
HASH = "rollouts-pod-template-hash"
WEIGHTS, SELECTOR = (
    '.spec.http[] | select(.name == "primary") | .route[].weight',
    f'.spec.selector."{HASH}"',
)


def sync(kube: Kube, manifests: list[Object]) -> None:
    """Applies all manifests as a sync of Argo CD's does, the ignored fields as they are in the cluster."""
    ignored = _ignored()
    for wanted in manifests:
        key = (wanted["kind"], wanted["metadata"]["name"])
        kube.apply(_with_live(kube, wanted, ignored[key]) if key in ignored else wanted, manager=MANAGER)


def apply(kube: Kube, manifests: list[Object]) -> None:
    """Applies all manifests as they are in Git, by force."""
    for wanted in manifests:
        kube.apply(wanted, manager=MANAGER)


def _ignored() -> dict[tuple[str, str], list[str]]:
    """The jq expressions of fields that Argo CD leaves alone, by kind and name."""
    (spec,) = (made["spec"] for made in applications("products") if made["metadata"]["name"] == "churn-dev")
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    return {(one["kind"], one["name"]): one["jqPathExpressions"] for one in spec["ignoreDifferences"]}


def _with_live(kube: Kube, wanted: Object, expressions: list[str]) -> Object:
    live, made = kube.get(kube.path(wanted)), copy.deepcopy(wanted)
    assert live is not None
    for expression in expressions:
        if expression == WEIGHTS:
            (now,), (to,) = ([r for r in one["spec"]["http"] if r["name"] == "primary"] for one in (live, made))
            for live_route, route in zip(now["route"], to["route"], strict=True):
                route["weight"] = live_route.get("weight", 0)
        elif expression == SELECTOR:
            if (found := live["spec"]["selector"].get(HASH)) is not None:
                made["spec"]["selector"][HASH] = found
        else:
            raise AssertionError(f"ignoreDifferences {expression!r} is not imitated here")
    return made
