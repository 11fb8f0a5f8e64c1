"""New passwords and a new signing key on a running stack, without a failed request: `make rotate`.

Keys, roles and users are named after their service and a generation, so that two generations work side by side. New
ones are made first; then everyone changes over, a predictor's successor being ready before it goes; then the models are
signed anew; then what was before is retired. A rotation that was killed is ended by another one.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from toolchain import compose
from toolchain.compose import ComposeError

PREDICTORS = ("churn-stable", "churn-canary")
PRODUCTS = ("churn",)
ACTIVE = ("Progressing", "Paused", "Promoting")
"""Phases of a rollout that somebody drives."""

SEEN = 60.0
"""Seconds in which Envoy finds a new predictor's address and health: it asks for both every second."""

HEALTHY = "from serving.rollout import envoy, stack as s; print(envoy.healthy(f'{s.ENVOY}:{s.ADMIN}').get('NAME', 0))"

Compose = Callable[..., str]


def rotate(call: Compose, env: Path) -> None:
    """Rotates everything that services know; `call` is one call of Compose.

    Raises ComposeError where one fails, when the stack does not run, or while a rollout is under way.
    """
    begun = time.monotonic()
    if "airflow-scheduler" not in call("ps", "--services", "--status", "running").split():
        raise ComposeError("the stack does not run: `make up-compose` starts it; `make rotate` is for a running one")
    for product in PRODUCTS:
        told = json.loads(call("exec", "-T", "rollout", "plumb", "rollout", "status", "--product", product, "--json"))
        if told["phase"] in ACTIVE:
            raise ComposeError(f"a rollout of {product} is under way: rotate when it has ended")
    compose.write_secrets(env, rotate=True)
    _tell("new keys beside the old ones", begun)
    for keeper in compose.KEEPERS:
        call("run", "--rm", "--no-deps", keeper)
    _tell("everyone changes over", begun)
    change_over(call)
    _tell("models are signed anew", begun)
    for product in PRODUCTS:
        call("exec", "-T", "rollout", "plumb", "resign", "--product", product)
        call("exec", "-T", "rollout", "plumb", "rollout", "attend", "--once", "--product", product)
    compose.retire_signing_key(env)
    _tell("the old signing key is trusted no more", begun)
    change_over(call)
    _tell("the old keys are retired", begun)
    for keeper in compose.KEEPERS:
        call("run", "--rm", "--no-deps", "--env", "RETIRE=1", keeper)
    _tell("done", begun)


def change_over(call: Compose) -> None:
    """Everyone runs with what .env says: predictors first, each successor ready before its predecessor goes."""
    for name in PREDICTORS:
        replace(call, name)
    call("up", "--detach", "--wait", "--wait-timeout", "600", *_running(call))


def replace(call: Compose, name: str) -> None:
    """One service's containers by new ones, which are healthy before the old ones are stopped."""
    before, ready = call("ps", "--quiet", name).split(), _ready(call, name)
    both = str(2 * len(before))
    call("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--scale", f"{name}={both}", name)
    deadline = time.monotonic() + SEEN
    while ready and _ready(call, name) < ready + len(before):
        if time.monotonic() > deadline:
            raise ComposeError(f"the new {name} is not ready for Envoy after {SEEN:.0f} s: the old one goes on serving")
        time.sleep(0.5)
    for old in before:
        subprocess.run(["docker", "stop", "--time", "30", old], check=True, capture_output=True)
        subprocess.run(["docker", "rm", old], check=True, capture_output=True)


def _ready(call: Compose, name: str) -> int:
    """How many of a service's containers Envoy sends requests to."""
    return int(call("exec", "-T", "rollout", "python", "-c", HEALTHY.replace("NAME", name)))


def _running(call: Compose) -> list[str]:
    """What runs, by service: a profile that is not started is not started by this."""
    return sorted(set(call("ps", "--services", "--status", "running").split()))


def _tell(what: str, begun: float) -> None:
    print(f"  · {time.monotonic() - begun:4.0f} s  {what}", flush=True)
