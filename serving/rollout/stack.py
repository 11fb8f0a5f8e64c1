"""The machinery of a rollout in a stack of containers: two predictors and Envoy, each a container of its own.

Nothing is started here: a side's predictor serves what its slot says (plumbline.state.slots) and starts again when that
changes. The weights are Envoy's, which starts with all of them on stable. The alias in the registry moves as on a
laptop, behind the last step.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from plumbline.product import Product
from plumbline.registry import signing, trusted_models
from plumbline.state import slots
from plumbline.state.slots import CANARY, STABLE, Side, Slot
from serving import launch
from serving import loaded_model as registry
from serving.errors import ServingError
from serving.rollout import envoy, manifests
from serving.rollout.errors import RolloutError
from serving.rollout.manifests import Rollout

ADMIN, CALLERS = 9901, 9000
"""Where Envoy's own pages and Envoy listen in a stack."""

ENVOY, PROMETHEUS = "envoy", "http://prometheus:9090"
SERVES_WITHIN = 120.0
"""Seconds that a predictor has to serve another version: it answers what is under way, ends and starts."""

TOLERATED = 10
"""Looks in a row at which a canary may not answer before it counts as gone."""


@dataclass
class Stack:
    """A product's machinery, by its Rollout and the analysis templates that this names (name → file)."""

    product: Product
    rollout: Rollout
    templates: Mapping[str, Path]
    _missed: int = 0

    @classmethod
    def of(cls, product: Product) -> Self:
        """By the files that a cluster gets."""
        return cls(product, manifests.rollout(manifests.rollout_file(product)), manifests.templates(product))

    def up(self) -> dict[str, str]:
        """All traffic to the champion, which stable serves when this returns; what → address."""
        self.weigh(0)
        champion = registry.find(self.product, registry.CHAMPION)
        if champion is None:
            raise ServingError(registry.missing(self.product, registry.CHAMPION))
        self._serve(STABLE, str(champion.version))
        return self.addresses()

    def addresses(self) -> dict[str, str]:
        """What → where it listens."""
        return {
            self.product.host: f"http://{ENVOY}:{CALLERS}",
            "envoy's pages": f"http://{ENVOY}:{ADMIN}",
            "prometheus": PROMETHEUS,
        }

    def start_canary(self, version: str) -> None:
        """A predictor of that version, at weight 0."""
        self._missed = 0
        self._serve(CANARY, version)

    def weigh(self, canary: int) -> None:
        """So many of 100 requests go to the canary. Returns when Envoy does so."""
        given = {self.rollout.stable: 100 - canary, self.rollout.canary: canary}
        envoy.set_weights(f"{ENVOY}:{ADMIN}", given)

    def dismiss_canary(self) -> None:
        """Weights back at once; the canary is stopped when its last request is answered."""
        self.weigh(0)
        self._drained(self.rollout.canary)
        slots.write(self.product, CANARY, None)

    def adopt_canary(self) -> None:
        """Stable serves the canary's version from now on; the canary answers for both until it does."""
        canary = slots.read(self.product, CANARY)
        if canary is None:
            raise RolloutError("the canary's slot says nothing any more")
        self.weigh(100)
        self._drained(self.rollout.stable)
        self._fill(STABLE, canary)
        self.weigh(0)
        self._drained(self.rollout.canary)

    def retire_stable(self) -> None:
        """The canary's predictor, which nobody asks any more, has nothing to serve."""
        slots.write(self.product, CANARY, None)

    def cut_off(self) -> None:
        """What is left to do when Envoy cannot be told: the canary serves nothing any more."""
        slots.write(self.product, CANARY, None)

    def answered(self) -> dict[str, int]:
        """How many requests each side has answered since Envoy started: `stable`, `canary`."""
        counted = envoy.completed(f"{ENVOY}:{ADMIN}")
        return {side: counted.get(name, 0) for side, name in self._names.items()}

    def stable_revision(self) -> str:
        """The revision of what stable serves."""
        found = slots.read(self.product, STABLE)
        return found.revision if found else ""

    def canary_lives(self) -> bool:
        """Whether a predictor of the canary answers; one that misses a second or two is alive."""
        self._missed = 0 if any(self._answers(CANARY, "/v2/health/live")) else self._missed + 1
        return self._missed <= TOLERATED

    @property
    def _names(self) -> dict[Side, str]:
        return {STABLE: self.rollout.stable, CANARY: self.rollout.canary}

    def _serve(self, side: Side, version: str) -> None:
        """Puts the version's signed files where predictors find them, and has the side serve them."""
        found = registry.find(self.product, version)
        if found is None:
            raise ServingError(registry.missing(self.product, version))
        with trusted_models.verified_files(found) as folder:
            names = slots.put(self.product, version, folder)
        bundle = found.tags[trusted_models.SIGNATURE]
        self._fill(
            side,
            Slot(
                version=version,
                run=str(found.run_id),
                digest=signing.digest(bundle),
                signature=signing.packed(bundle),
                revision=launch.revision(self.product, version),
                files=names,
            ),
        )

    def _fill(self, side: Side, slot: Slot) -> None:
        """Returns when all predictors of the side are ready with that version. Raises RolloutError when one is late."""
        if slots.read(self.product, side) != slot:
            slots.write(self.product, side, slot)
        model = f"/v2/models/{self.product.service}"

        def serves() -> bool:
            told = [answer and answer.get("versions") for answer in self._answers(side, model)]
            return set(map(str, told)) == {str([slot.version])} and None not in self._answers(side, f"{model}/ready")

        self._wait(serves, SERVES_WITHIN, f"{self._names[side]} does not serve version {slot.version}: see its log")

    def _answers(self, side: Side, path: str) -> list[dict[str, Any] | None]:
        """What each of the side's predictors answers with 200, else None."""
        return [self._answer(f"http://{address}{path}") for address in slots.addresses(self.product, side)]

    @staticmethod
    def _answer(url: str) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
                found = json.load(answer)
                return found if isinstance(found, dict) else {"answer": found}
        except (OSError, ValueError):
            return None

    def _drained(self, cluster: str) -> None:
        envoy.wait_until_drained(f"{ENVOY}:{ADMIN}", cluster)

    @staticmethod
    def _wait(done: Callable[[], bool], within: float, otherwise: str) -> None:
        deadline = time.monotonic() + within
        while not done():
            if time.monotonic() > deadline:
                raise RolloutError(f"after {within:.0f} s {otherwise}")
            time.sleep(0.2)
