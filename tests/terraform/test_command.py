"""`make tofu ONLY=…` says what it checked, and ends with 1 when something is not as it should be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain import tofu
from toolchain.tofu import Checked
from toolchain.tofu_tools import Workspace

pytestmark = pytest.mark.tofu


@pytest.fixture(autouse=True)
def _only_grants(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tofu", "modules/grants"])


def ended() -> int:
    with pytest.raises(SystemExit) as end:
        tofu.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_what_was_checked_is_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended() == 0
    told = capsys.readouterr().out
    assert "· modules/grants: 2 tests passed" in told and "1 folders, 2 tests passed" in told
    assert (home / "tofu" / "terraform" / "modules" / "grants" / "main.tf").exists(), "it works in a copy"
    assert not (tofu.TERRAFORM / "modules" / "grants" / ".terraform").exists()


def test_a_module_that_fails_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        tofu, "check", lambda workspace, where: Checked("modules/grants", 1, "`tofu test` ended with 1")
    )
    assert ended() == 1
    assert "! modules/grants: `tofu test` ended with 1" in capsys.readouterr().out


def test_a_file_that_is_not_formatted_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one(workspace: Workspace) -> list[str]:
        return ["modules/grants/main.tf"]

    monkeypatch.setattr(tofu, "unformatted", one)
    assert ended() == 1
    assert "! modules/grants/main.tf: not formatted" in capsys.readouterr().out
