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
PRODUCTS = ("churn", "images")
SERVED = "churn"
"""The product whose predictors are here."""

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
    told = json.loads(call("exec", "-T", "rollout", "plumb", "rollout", "status", "--product", SERVED, "--json"))
    if told["phase"] and not told["ended_at"]:
        raise ComposeError(f"a rollout of {SERVED} is under way: rotate when it has ended")
    compose.write_secrets(env, rotate=True)
    _tell("new keys beside the old ones", begun)
    for keeper in compose.KEEPERS:
        call("run", "--rm", "--no-deps", keeper)
    _tell("everyone changes over", begun)
    change_over(call)
    _tell("models are signed anew", begun)
    for product in PRODUCTS:
        try:
            call("exec", "-T", "rollout", "plumb", "resign", "--product", product)
        except ComposeError as error:  # a version that nobody trusted signed keeps nobody from new keys
            _tell(f"not signed anew, and never loaded: {error}", begun)
    _attended(call)
    compose.retire_signing_key(env)
    _tell("the old signing key is trusted no more", begun)
    change_over(call)
    _tell("the old keys are retired", begun)
    for keeper in compose.KEEPERS:
        call("run", "--rm", "--no-deps", "--env", "RETIRE=1", keeper)
    _tell("done", begun)


def _attended(call: Compose) -> None:
    """Stable's slot has the champion's new signature when this returns. The container's own look may come between."""
    for _ in range(20):
        try:
            call("exec", "-T", "rollout", "plumb", "rollout", "attend", "--once", "--product", SERVED)
        except ComposeError as error:
            refused = error
            time.sleep(3)
        else:
            return
    raise refused


def change_over(call: Compose) -> None:
    """Everyone runs with what .env says: predictors first, each successor ready before its predecessor goes."""
    for name in PREDICTORS:
        replace(call, name)
    call("up", "--detach", "--wait", "--wait-timeout", "600", *_running(call))


def replace(call: Compose, name: str) -> None:
    """One service's containers by new ones, which are healthy before the old ones are stopped."""
    call("rm", "--force", name)  # one that was stopped and not removed would be started in place of a new one
    before, ready = call("ps", "--quiet", name).split(), _ready(call, name)
    both = str(2 * len(before))
    call("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--scale", f"{name}={both}", name)
    deadline = time.monotonic() + SEEN
    while ready and _ready(call, name) < ready + len(before):
        if time.monotonic() > deadline:
            raise ComposeError(f"the new {name} is not ready for Envoy after {SEEN:.0f} s: the old one goes on serving")
        time.sleep(0.5)
    for old in before:
        for command in (["stop", "--time", "30"], ["rm"]):
            done = subprocess.run(["docker", *command, old], check=False, capture_output=True, text=True)
            if done.returncode:
                raise ComposeError(f"`docker {command[0]} {old[:12]}` ended with {done.returncode}: {done.stderr}")


def _ready(call: Compose, name: str) -> int:
    """How many of a service's containers Envoy sends requests to."""
    return int(call("exec", "-T", "rollout", "python", "-c", HEALTHY.replace("NAME", name)))


def _running(call: Compose) -> list[str]:
    """What runs, by service: a profile that is not started is not started by this."""
    states = ("--status", "running", "--status", "restarting")
    return sorted(set(call("ps", "--services", *states).split()))


def _tell(what: str, begun: float) -> None:
    print(f"  · {time.monotonic() - begun:4.0f} s  {what}", flush=True)
