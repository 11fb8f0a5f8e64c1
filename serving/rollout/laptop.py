"""The machinery of a rollout on one machine: two predictors, Envoy between them and their callers, what measures them.

All of it are private servers of the home. The VirtualService that Envoy follows is the home's copy of the one that a
cluster gets; nothing but the driver writes its weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from plumbline import files
from plumbline.product import Product
from plumbline.servers import services
from plumbline.servers.services import HOST, Launch, Service
from serving import launch
from serving.rollout import envoy, manifests, prometheus, state
from serving.rollout.errors import RolloutError
from serving.rollout.manifests import Rollout
from serving.track import STABLE

JUDGE, JUDGE_EVERY = "judge", 1.0


@dataclass
class Laptop:
    """A product's machinery, by its Rollout and the analysis templates that this names (name → file)."""

    product: Product
    rollout: Rollout
    templates: Mapping[str, Path]

    @classmethod
    def of(cls, product: Product) -> Self:
        """By the files that a cluster gets."""
        return cls(product, manifests.rollout(manifests.rollout_file(product)), manifests.templates(product))

    def up(self) -> dict[str, str]:
        """Starts what does not run yet, all traffic to the champion; what → address."""
        stable = self._stable()
        self._write(0, stable, services.find(self._canary_name))
        clusters = [self.rollout.stable, self.rollout.canary]
        proxy = services.ensure(envoy.launch(self.watched, clusters, self.product.beside(envoy.NAME)))
        self._applied()
        judge = self._judge()
        self._targets()
        config = prometheus.scrape_config(f"{HOST}:{proxy.more['admin']}", self._target_file, f"{HOST}:{judge.port}")
        services.ensure_configured(prometheus.launch(config, self.product.beside(prometheus.NAME)))
        return self.addresses()

    def addresses(self) -> dict[str, str]:
        """What → where it listens."""
        return {
            self.product.host: f"http://{HOST}:{self.envoy.port}",
            "envoy's pages": f"http://{HOST}:{self.envoy.more['admin']}",
            "prometheus": f"http://{HOST}:{self.prometheus.port}",
        }

    def start_canary(self, version: str) -> Service:
        """A predictor of that version, known to Envoy with weight 0."""
        found = launch.canary(self.product, version)
        self._write(0, services.find(self.product.server), found)
        self._applied()
        self._targets()
        return found

    def weigh(self, canary: int) -> None:
        """So many of 100 requests go to the canary. Returns when Envoy does so."""
        self._write(canary, services.find(self.product.server), services.find(self._canary_name))
        self._applied()

    def dismiss_canary(self) -> None:
        """Weights back at once; the canary is stopped when its last request is answered."""
        self.weigh(0)
        self._drained(self.rollout.canary)
        self._write(0, services.find(self.product.server), None)
        self._applied()
        services.stop(self._canary_name)
        self._targets()

    def adopt_canary(self) -> None:
        """The canary is stable from now on: all goes to it, it stands behind both names, then behind the one of stable.

        A name loses its address last: a request that was on its way there would find nobody.
        """
        canary = services.find(self._canary_name)
        if canary is None:
            raise RolloutError(f"the canary is gone: {services.log_file(self._canary_name)}")
        self.weigh(100)
        self._drained(self.rollout.stable)
        self._write(0, canary, canary)
        self._applied()
        self._drained(self.rollout.canary)
        self._write(0, canary, None)
        self._applied()
        launch.tell(canary.more["revision"], STABLE)

    def retire_stable(self) -> None:
        """Stops the predictor that was replaced, which nobody asks any more, and gives its name to the new one."""
        if services.find(self._canary_name) is not None:
            services.stop(self.product.server)
            services.rename(self._canary_name, self.product.server)
            self._targets()

    def cut_off(self) -> None:
        """What is left to do when Envoy cannot be told: where it is gone nobody can reach the canary, which stops."""
        if services.find(self.product.beside(envoy.NAME)) is None:
            services.stop(self._canary_name)

    def answered(self) -> dict[str, int]:
        """How many requests each side has answered since Envoy started: `stable`, `canary`."""
        counted = envoy.completed(self._admin)
        return {side: counted.get(name, 0) for side, name in self._names.items()}

    def stable_revision(self) -> str:
        """The revision of the predictor that runs as stable, which may be of older code than this."""
        found = services.find(self.product.server)
        return str(found.more["revision"]) if found else ""

    def canary_lives(self) -> bool:
        """Whether the canary's process is there."""
        return services.find(self._canary_name) is not None

    @property
    def envoy(self) -> Service:
        """The proxy. Raises RolloutError when it does not run: nothing reaches any predictor through it then."""
        return _running(self.product.beside(envoy.NAME))

    @property
    def prometheus(self) -> Service:
        """What measures. Raises RolloutError when it does not run."""
        return _running(self.product.beside(prometheus.NAME))

    @property
    def watched(self) -> Path:
        """The folder that Envoy watches."""
        return state.home(self.product) / "xds"

    @property
    def virtual_service(self) -> Path:
        """The home's copy, with the weights of now."""
        return state.home(self.product) / "virtual-service.yaml"

    @property
    def _admin(self) -> str:
        return f"{HOST}:{self.envoy.more['admin']}"

    @property
    def _canary_name(self) -> str:
        return launch.canary_name(self.product)

    @property
    def _names(self) -> dict[str, str]:
        return {"stable": self.rollout.stable, "canary": self.rollout.canary}

    @property
    def _target_file(self) -> Path:
        return state.home(self.product) / "targets.json"

    def _stable(self) -> Service:
        """The champion's predictor; one from before there were revisions is started again."""
        found = launch.ensure(self.product)
        if "revision" not in found.more:
            services.stop(self.product.server)
            found = launch.ensure(self.product)
        return found

    def _judge(self) -> Service:
        def command(port: int, token: str) -> list[str]:
            given = ["--template", str(manifests.kpis(self.product)), "--port", str(port)]
            given += ["--product", self.product.name, "--every", str(JUDGE_EVERY)]
            return [sys.executable, "-m", "plumb", "judge", *given]

        def ready(port: int, token: str) -> bool:
            return services.answers(f"http://{HOST}:{port}/metrics", 2)

        return services.ensure(Launch(self.product.beside(JUDGE), command, ready))

    def _write(self, canary: int, stable: Service | None, other: Service | None) -> None:
        import yaml

        source = manifests.virtual_service(self.product)
        declared = manifests.read(source, "VirtualService")
        given = {self.rollout.stable: 100 - canary, self.rollout.canary: canary}
        made = envoy.with_weights(declared, given, self.rollout.route)
        head = f"# {source.name} of the repository, with the weights of this home's rollout\n"
        files.write_whole(self.virtual_service, head + yaml.safe_dump(made, sort_keys=False))
        behind = {self.rollout.stable: stable, self.rollout.canary: other}
        envoy.write(self.watched, made, {name: [(HOST, at.port)] if at else [] for name, at in behind.items()})

    def _applied(self) -> None:
        envoy.wait_until_applied(self._admin, self.watched)

    def _drained(self, cluster: str) -> None:
        envoy.wait_until_drained(self._admin, cluster)

    def _targets(self) -> None:
        found = (services.find(name) for name in (self.product.server, self._canary_name))
        at = {service.more["revision"]: f"{HOST}:{service.port}" for service in found if service is not None}
        prometheus.write_targets(self._target_file, at)


def _running(name: str) -> Service:
    found = services.find(name)
    if found is None:
        raise RolloutError(f"{name} does not run: {services.log_file(name)}")
    return found
