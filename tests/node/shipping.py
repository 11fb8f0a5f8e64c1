"""Models of the day's release, shipped to the cluster by commits, under simulated callers of real customers."""

from __future__ import annotations

import time
from typing import Any

import argo_cd_servers
import yaml
from deployed import Deployed
from git_server import Repository
from installed import Installed, copied
from kube import Kube
from world import Model

from plumb.demo.simulated_traffic import Answer, Traffic, callers
from plumbline.registry import registered_models
from products.churn import CHURN
from serving import promote
from toolchain import manifests
from training import variants

OVERLAYS = "k8s/churn/overlays"
OVERLAY = f"{OVERLAYS}/dev"
MODEL = f"{OVERLAY}/{promote.MODEL_FILE}"
APPLICATION = "churn-dev"
PER_SECOND = 60.0
GIVEN_UP = 90
"""Seconds after which a rollout whose pods do not come up is aborted; 600 in the manifests."""


class Shipping(Deployed):
    """The product as the repository has it; `commits` has the newest commit of each version."""

    def __init__(self, kube: Kube, repository: Repository, platform: Installed) -> None:
        self.kube, self.repository, self.platform = kube, repository, platform
        self.commits: dict[str, str] = {}

    def shorten(self, prometheus: str) -> None:
        """Commits an overlay dev whose analyses wait for seconds, and which, like prod, moves the alias."""
        read = self.repository.read
        made, prod = (yaml.safe_load(read(f"{OVERLAYS}/{of}/kustomization.yaml")) for of in ("dev", "prod"))
        found = manifests.objects(OVERLAY, self.repository.work)
        rollout = self._adapted(next(each for each in found if each["kind"] == "Rollout"), prometheus)
        rollout["spec"]["progressDeadlineSeconds"] = GIVEN_UP
        kept = {name: rollout[name] for name in ("apiVersion", "kind", "spec")}
        made["patches"].append({"path": "short.yaml"})
        made["components"].insert(0, "../../../predictor/champion")
        made["replacements"] = prod["replacements"]
        texts = {
            "kustomization.yaml": yaml.safe_dump(made),
            "short.yaml": yaml.safe_dump({**kept, "metadata": {"name": rollout["metadata"]["name"]}}),
        }
        self.repository.commit("dev's canaries are short", {f"{OVERLAY}/{name}": text for name, text in texts.items()})

    def published(self, version: str) -> Model:
        """A registered version with its files in the bucket."""
        found = registered_models.client().get_model_version(CHURN.model, version)
        uri = copied(CHURN, version)
        declared = yaml.safe_load(promote.model_file(CHURN, found, uri))
        return Model(version, uri, declared["metadata"]["annotations"])

    def made(self, kind: str) -> Model:
        """A model to roll out on purpose, of the release in force."""
        return self.published(str(variants.register(CHURN, kind)["version"]))

    def deploy(self, model: Model) -> float:
        """Commits and pushes the model's file. Returns the moment of the push (monotonic)."""
        found = registered_models.client().get_model_version(CHURN.model, model.version)
        text = promote.model_file(CHURN, found, model.uri)
        self.commits[model.version] = self.repository.commit(f"dev gets version {model.version}", {MODEL: text})
        argo_cd_servers.refresh(self.kube, APPLICATION)
        return time.monotonic()

    def promote(self, model: Model) -> float:
        """`plumb promote`, with its gates, in the clone; its branch merged. Returns the moment of the push."""
        told = promote.promote(CHURN, "dev", model.version, model.uri, repository=self.repository.work)
        self.commits[model.version] = self.repository.merge(told["branch"])
        argo_cd_servers.refresh(self.kube, APPLICATION)
        return time.monotonic()

    def revert(self, model: Model) -> float:
        """Takes the commit of a model back. Returns the moment of the push (monotonic)."""
        self.repository.revert(self.commits[model.version])
        argo_cd_servers.refresh(self.kube, APPLICATION)
        return time.monotonic()


class Customers:
    """Simulated callers who ask about real customers, as long as it is open; outcomes are simulated too."""

    def __init__(self, port: int) -> None:
        self._traffic = Traffic(f"http://127.0.0.1:{port}", PER_SECOND, callers(CHURN))

    def __enter__(self) -> Customers:
        self._traffic.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._traffic.__exit__(*raised)

    @property
    def asked(self) -> list[Answer]:
        """Every answer so far."""
        return self._traffic.answers

    def since(self, begun: float, until: float | None = None) -> list[Any]:
        """What was asked from a moment (monotonic) on."""
        return [one for one in list(self.asked) if one.at >= begun and (until is None or one.at < until)]
