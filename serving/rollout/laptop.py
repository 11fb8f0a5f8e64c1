"""The machinery of a rollout on one machine: two predictors, Envoy between them and their callers, what measures them.

All of it are private servers of the home. The VirtualService that Envoy follows is the home's copy of the one that a
cluster gets; nothing but the driver writes its weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST, Launch, Service
from plumbline.settings import settings
from products.churn import CHURN
from serving import launch
from serving.rollout import envoy, manifests, prometheus
from serving.rollout.errors import RolloutError
from serving.rollout.manifests import Rollout
from serving.track import STABLE

DRAINED_WITHIN = 15.0
"""Seconds that requests under way have before their predictor is stopped; one takes 3 at most."""

JUDGE, JUDGE_EVERY = "judge", 1.0


@dataclass
class Laptop:
    """The predictors' addresses as Envoy has them: cluster → the service behind it, None for an empty one."""

    rollout: Rollout
    templates: Mapping[str, Path] = field(default_factory=lambda: manifests.TEMPLATES)

    def up(self) -> dict[str, str]:
        """Starts what does not run yet, all traffic to the champion; what → address."""
        stable = self._stable()
        self._write(0, stable, services.find(launch.canary_name(CHURN)))
        proxy = services.ensure(envoy.launch(self.watched, [self.rollout.stable, self.rollout.canary]))
        self._applied()
        judge = self._judge()
        self._targets()
        config = prometheus.scrape_config(f"{HOST}:{proxy.more['admin']}", self._target_file, f"{HOST}:{judge.port}")
        services.ensure_configured(prometheus.launch(config))
        return self.addresses()

    def addresses(self) -> dict[str, str]:
        """What → where it listens."""
        return {
            CHURN.host: f"http://{HOST}:{self.envoy.port}",
            "envoy's pages": f"http://{HOST}:{self.envoy.more['admin']}",
            "prometheus": f"http://{HOST}:{self.prometheus.port}",
        }

    def start_canary(self, version: str) -> Service:
        """A predictor of that version, known to Envoy with weight 0."""
        found = launch.canary(CHURN, version)
        self._write(0, services.find(CHURN.server), found)
        self._applied()
        self._targets()
        return found

    def weigh(self, canary: int) -> None:
        """So many of 100 requests go to the canary. Returns when Envoy does so."""
        self._write(canary, services.find(CHURN.server), services.find(launch.canary_name(CHURN)))
        self._applied()

    def dismiss_canary(self) -> None:
        """Weights back at once; the canary is stopped when its last request is answered."""
        self.weigh(0)
        self._drained(self.rollout.canary)
        self._write(0, services.find(CHURN.server), None)
        self._applied()
        services.stop(launch.canary_name(CHURN))
        self._targets()

    def adopt_canary(self) -> None:
        """The canary is stable from now on: all goes to it, it stands behind both names, then behind the one of stable.

        A name loses its address last: a request that was on its way there would find nobody.
        """
        canary = services.find(launch.canary_name(CHURN))
        if canary is None:
            raise RolloutError(f"the canary is gone: {services.log_file(launch.canary_name(CHURN))}")
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
        if services.find(launch.canary_name(CHURN)) is not None:
            services.stop(CHURN.server)
            services.rename(launch.canary_name(CHURN), CHURN.server)
            self._targets()

    def answered(self) -> dict[str, int]:
        """How many requests each side has answered since Envoy started: `stable`, `canary`."""
        counted = envoy.completed(self.envoy.more["admin"])
        return {side: counted.get(name, 0) for side, name in self._names.items()}

    def stable_revision(self) -> str:
        """The revision of the predictor that runs as stable, which may be of older code than this."""
        found = services.find(CHURN.server)
        return str(found.more["revision"]) if found else ""

    def canary_lives(self) -> bool:
        """Whether the canary's process is there."""
        return services.find(launch.canary_name(CHURN)) is not None

    @property
    def envoy(self) -> Service:
        """The proxy. Raises RolloutError when it does not run: nothing reaches any predictor through it then."""
        return _running(envoy.NAME)

    @property
    def prometheus(self) -> Service:
        """What measures. Raises RolloutError when it does not run."""
        return _running(prometheus.NAME)

    @property
    def watched(self) -> Path:
        """The folder that Envoy watches."""
        return settings().home / "rollout" / "xds"

    @property
    def virtual_service(self) -> Path:
        """The home's copy, with the weights of now."""
        return settings().home / "rollout" / "virtual-service.yaml"

    @property
    def _names(self) -> dict[str, str]:
        return {"stable": self.rollout.stable, "canary": self.rollout.canary}

    @property
    def _target_file(self) -> Path:
        return settings().home / "rollout" / "targets.json"

    def _stable(self) -> Service:
        """The champion's predictor; one from before there were revisions is started again."""
        found = launch.ensure(CHURN)
        if "revision" not in found.more:
            services.stop(CHURN.server)
            found = launch.ensure(CHURN)
        return found

    def _judge(self) -> Service:
        def command(port: int, token: str) -> list[str]:
            given = ["--template", str(manifests.KPIS), "--port", str(port), "--every", str(JUDGE_EVERY)]
            return [sys.executable, "-m", "plumb", "judge", *given]

        return services.ensure(
            Launch(JUDGE, command, lambda port, token: services.answers(f"http://{HOST}:{port}/metrics", 2))
        )

    def _write(self, canary: int, stable: Service | None, other: Service | None) -> None:
        import yaml

        declared = manifests.read(manifests.VIRTUAL_SERVICE, "VirtualService")
        given = {self.rollout.stable: 100 - canary, self.rollout.canary: canary}
        made = envoy.with_weights(declared, given, self.rollout.route)
        head = f"# {manifests.VIRTUAL_SERVICE.name} of the repository, with the weights of this home's rollout\n"
        files.write_whole(self.virtual_service, head + yaml.safe_dump(made, sort_keys=False))
        behind = {self.rollout.stable: stable, self.rollout.canary: other}
        envoy.write(self.watched, made, {name: [(HOST, at.port)] if at else [] for name, at in behind.items()})

    def _applied(self) -> None:
        envoy.wait_until_applied(self.envoy.more["admin"], self.watched)

    def _drained(self, cluster: str) -> None:
        """Waits for the last request to a cluster that gets no more."""
        deadline = time.monotonic() + DRAINED_WITHIN
        while envoy.active(self.envoy.more["admin"], cluster) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _targets(self) -> None:
        found = (services.find(name) for name in (CHURN.server, launch.canary_name(CHURN)))
        at = {service.more["revision"]: f"{HOST}:{service.port}" for service in found if service is not None}
        prometheus.write_targets(self._target_file, at)


def _running(name: str) -> Service:
    found = services.find(name)
    if found is None:
        raise RolloutError(f"{name} does not run: {services.log_file(name)}")
    return found
