"""A rollout in a stack of containers, without containers: Envoy's own configuration, and weights that it takes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from products.churn import CHURN
from serving.launch import ready
from serving.rollout import envoy, machinery, manifests, stack_files
from serving.rollout.errors import RolloutError
from serving.rollout.laptop import Laptop
from serving.rollout.stack import Stack

pytestmark = pytest.mark.servers


def test_the_committed_files_are_those_that_k8s_gives() -> None:
    for name, text in stack_files.texts().items():
        assert (stack_files.FOLDER / name).read_text() == text, "`make generate`"


def test_envoy_takes_its_configuration() -> None:
    command = [str(envoy.binary()), "--mode", "validate", "-c", str(stack_files.FOLDER / "envoy.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[str]:
    """An Envoy of the stack's configuration, on loopback."""
    port, own = services.free_port(), services.free_port()
    virtual_service = manifests.read(manifests.virtual_service(CHURN), "VirtualService")
    config = tmp_path / "envoy.json"
    files.write_whole(config, files.dumps(envoy.stack_bootstrap(virtual_service, port, own, 8080, ready(CHURN))))
    command = [str(envoy.binary()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while not services.answers(f"http://{HOST}:{own}/ready", 1):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        yield f"{HOST}:{own}"
    finally:
        process.terminate()
        process.wait(10)


def test_envoy_takes_weights_and_says_what_it_does_not_take(admin: str) -> None:
    envoy.set_weights(admin, {"churn-stable": 75, "churn-canary": 25})
    entries = envoy._asked(admin, "/runtime?format=json")["entries"]
    assert {name: entry["final_value"] for name, entry in entries.items()} == {
        "split.churn-stable": "75",
        "split.churn-canary": "25",
    }
    with pytest.raises(RolloutError, match="does not answer"):
        envoy.set_weights(f"{HOST}:{services.free_port()}", {"churn-stable": 100})


def test_a_place_for_models_is_what_tells_a_stack_from_a_laptop() -> None:
    assert isinstance(machinery.of(CHURN), Laptop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_MODELS", "s3://models")
        settings.cache_clear()
        assert isinstance(machinery.of(CHURN), Stack)
    settings.cache_clear()
