"""Each alert has a runbook and each runbook an alert; every command in one exists as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from drills.catalogue import DRILLS
from observability import cluster_rules, house_rules, slo_rules
from observability.rule import RUNBOOKS, Alert, alerts
from plumb.main import app
from plumbline.settings import ROOT

DEFINED = alerts([*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()])
ALERTS = {alert.name for alert in DEFINED}
PARTS = ("**What it means.**", "**Who is hurt.**", "## See it", "## Stop the bleeding", "## Recover", "**Tried:**")
BOOKS = sorted((ROOT / RUNBOOKS).glob("*.md"))


def commands(text: str) -> list[str]:
    """The commands in blocks and in backticks."""
    blocks = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    inline = re.findall(r"`((?:plumb|make) [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [*blocks, *inline]


def refused(command: str) -> str:
    """Why `plumb` or `make` would not take a command as it is written; empty when it would. Nothing runs."""
    program, *arguments = shlex.split(command)
    if program == "make":
        known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if arguments[0] in known else f"no such target: {arguments[0]}"
    if program != "plumb":
        return f"neither plumb nor make: {program}"
    found = typer.main.get_command(app)
    context = click.Context(found)  # type: ignore[arg-type]
    while hasattr(found, "get_command") and arguments:
        below = found.get_command(context, arguments[0])  # type: ignore[arg-type]
        if below is None:
            break
        found, arguments = below, arguments[1:]
    if hasattr(found, "get_command") and not getattr(found, "invoke_without_command", False):
        return f"no such command: {' '.join(arguments) or command}"
    try:
        found.make_context("plumb", list(arguments))
    except Exception as error:  # typer has a copy of click's exceptions of its own
        return f"{type(error).__name__}: {error}"
    return ""


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in BOOKS} == ALERTS
    assert {alert.runbook for alert in DEFINED} == {str(path.relative_to(ROOT)) for path in BOOKS}


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_runbook_is_whole_and_its_commands_exist(path: Path) -> None:
    text = path.read_text()
    places = [text.find(part) for part in PARTS]
    assert -1 not in places and places == sorted(places)
    assert commands(text)
    assert {command: why for command in commands(text) if (why := refused(command))} == {}
    tried = text.partition("**Tried:**")[2]
    named = set(re.findall(r"drills? ((?:`[a-z-]+`(?:, )?)+)", tried))
    drills = {name for names in named for name in re.findall(r"`([a-z-]+)`", names)}
    assert drills <= {drill.name for drill in DRILLS}
    assert all((ROOT / file).exists() for file in re.findall(r"tests/[\w/]+(?:\.py)?", tried))
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (path.parent / link).exists()


@pytest.mark.parametrize("name", ["lineage.md", "observability.md"])
def test_the_commands_of_the_pages_on_call_reads_exist(name: str) -> None:
    found = commands((ROOT / "docs" / name).read_text())
    assert found and {command: why for command in found if (why := refused(command))} == {}


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_day_to_put_in_is_said_above_its_block(path: Path) -> None:
    parts = re.split(r"(```sh\n.*?```)", path.read_text(), flags=re.DOTALL)
    blocks = [(before, block) for before, block in zip(parts[::2], parts[1::2], strict=False) if "--as-of" in block]
    for before, _ in blocks:
        said = before.strip().rpartition("\n")[2]
        assert said.startswith("Put in the day that ") and f"in force` in `plumb incident {path.stem}`" in said


@pytest.mark.parametrize(
    "command", ["plumb undo", "plumb materialize --fast", "plumb ingest --as-of June", "make tea", "rm -r lake"]
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert refused(command)


def whose(alert: Alert) -> str:
    """Its name and product: for these there is one way back."""
    return f"{alert.name} {alert.about.get('product', '')}".strip()


@pytest.mark.parametrize("alert", {whose(alert): alert for alert in DEFINED}.values(), ids=whose)
def test_an_alert_carries_a_way_back_that_exists(alert: Alert) -> None:
    way = alert.way_back
    ways = [way.command.format(release=2, alert=alert.name)] if way.command else []
    ways = [command for line in [*ways, *commands(alert.description)] for command in line.split(" && ")]
    assert way.kind == "runbook" or ways, "no command, and no word that the runbook is the way"
    assert {command: why for command in ways if (why := refused(command))} == {}
    assert {other.way_back for other in DEFINED if whose(other) == whose(alert)} == {way}, (
        "one way, whatever its severity"
    )
    assert alert.as_dict()["annotations"] == {
        "summary": alert.summary,
        "description": alert.description,
        "runbook": f"{RUNBOOKS}/{alert.name}.md",
    }
