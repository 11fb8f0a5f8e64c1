"""A predictor that serves what its slot says: what it answers before, and that it ends when the slot changes."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbline.errors import Conflict
from plumbline.registry import signing, trusted_models
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from plumbline.state import slots
from plumbline.state.slots import STABLE, Slot
from products.churn import CHURN
from serving import slot as slotted
from serving.rollout import attending, state

FIRST, SECOND = (Slot(version, "a-run", "sha256:" + "0" * 64, "signed", "0123456789", ()) for version in "12")
BUNDLE = "the newest key's bundle"


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_MODELS", str(tmp_path / "models"))
        patch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
        patch.setattr(slotted, "EVERY", 0.05)
        settings.cache_clear()
        yield
    settings.cache_clear()


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_until_the_slot_says_something_it_is_alive_and_answers_503() -> None:
    port, found = services.free_port(), list[Slot]()
    thread = threading.Thread(target=lambda: found.append(slotted._awaited(CHURN, STABLE, HOST, port)))
    thread.start()
    deadline = time.monotonic() + 10
    while not services.listening(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert status(port, slotted.ALIVE) == 200
    assert status(port, f"/v2/models/{CHURN.service}/ready") == 503
    slots.write(CHURN, STABLE, FIRST)
    thread.join(10)
    assert found == [FIRST] and not services.listening(port), "the port is free for the predictor"


@pytest.mark.parametrize("then", [SECOND, None])
def test_it_ends_as_by_sigterm_when_the_slot_says_something_else(
    then: Slot | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.write(CHURN, STABLE, FIRST)
    ended, told = threading.Event(), list[tuple[int, int]]()

    def kill(pid: int, number: int) -> None:
        told.append((pid, number))
        ended.set()

    monkeypatch.setattr(os, "kill", kill)
    with slotted._watched(CHURN, STABLE, FIRST):
        slots.write(CHURN, STABLE, replace(FIRST, signature="by another key"))
        assert not ended.wait(0.3), "the same files, signed anew"
        slots.write(CHURN, STABLE, then)
        assert ended.wait(5)
    assert told == [(os.getpid(), signal.SIGTERM)]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions that a stack was told to serve, while the registry's champion is version 2."""
    told: list[str] = []
    tags = {trusted_models.SIGNATURE: BUNDLE}

    def up(product: Any) -> Any:
        return SimpleNamespace(up=lambda: told.append("up"))

    monkeypatch.setattr(attending.driver, "recover", lambda product: None)
    monkeypatch.setattr(attending.registry, "find", lambda product, alias: SimpleNamespace(version=2, tags=tags))
    monkeypatch.setattr(attending.Stack, "of", up)
    return told


def test_stable_gets_the_champion_once(served: list[str]) -> None:
    slots.write(CHURN, STABLE, FIRST)
    attending.look(CHURN)
    assert served == ["up"]
    slots.write(CHURN, STABLE, replace(SECOND, signature=signing.packed(BUNDLE)))
    attending.look(CHURN)
    assert served == ["up"]


def test_stable_gets_the_champions_new_signature(served: list[str]) -> None:
    slots.write(CHURN, STABLE, replace(SECOND, signature=signing.packed("by the key before")))
    attending.look(CHURN)
    assert served == ["up"]


def test_while_a_rollout_is_under_way_its_driver_sees_to_everything(served: list[str]) -> None:
    with state.driving(CHURN), pytest.raises(Conflict):
        attending.look(CHURN)
    assert served == []
