"""`plumb rollout` and `plumb demo-canary` where there is nothing to roll out, or what was asked for makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from plumb import main as cli
from plumb.demo import canary as demo_canary
from plumbline.state.releases import ReleaseError
from products.churn import CHURN
from products.images import IMAGES
from serving.client import DemoError
from serving.rollout import state


def told(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["rollout", *arguments])
    return done.exit_code, done.output


def test_before_the_first_rollout_every_command_says_so(home: Path) -> None:
    for command in ("status", "watch"):
        assert told(command) == (0, "nothing was rolled out here yet\n")
    for command in ("abort", "promote"):
        assert told(command) == (0, "phase: none\nmessage: no rollout is under way\n")
    assert not (home / "rollouts").exists()


def test_a_product_is_named_and_one_that_is_none_is_refused(home: Path) -> None:
    assert told("status", "--product", "images") == (0, "nothing was rolled out here yet\n")
    code, output = told("abort", "--product", "cats")
    assert code == 2 and "no product 'cats': there are churn, images" in output


def test_a_conflict_names_the_command_with_its_product(home: Path) -> None:
    assert state.command(CHURN, "abort") == "plumb rollout abort"
    assert state.command(IMAGES, "abort") == "plumb rollout abort --product images"


def test_an_arg_without_a_value_is_refused(home: Path) -> None:
    code, output = told("start", "2", "--arg", "count")
    assert code == 2 and "expected NAME=VALUE" in output


def test_an_unknown_bad_model_is_refused_before_anything_is_made(home: Path) -> None:
    with pytest.raises(DemoError, match="no bad model ugly: there are leaky, swapped, slow, features, all"):
        demo_canary.demo(CHURN, "ugly")
    with pytest.raises(DemoError, match="no bad model leaky: there are swapped, unsure, all"):
        demo_canary.demo(IMAGES, "leaky")


def test_without_a_release_there_is_nothing_to_show(home: Path) -> None:
    with pytest.raises(ReleaseError, match="make demo"):
        demo_canary.demo(CHURN)
