"""Which Python the environments are made with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from toolchain import bootstrap


def _program(path: Path, code: int) -> Path:
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder, seen by a Python that is too new."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setattr(bootstrap, "sys", SimpleNamespace(version_info=(3, 99, 0), executable="too new"))
    return tmp_path


def test_a_python_that_does_not_start_is_passed_over(elsewhere: Path) -> None:
    _program(elsewhere / "python3.12", 127)
    wanted = _program(elsewhere / "python3.11", 0)
    assert bootstrap.interpreter() == str(wanted)


def test_without_one_on_path_uv_is_told_a_version(elsewhere: Path) -> None:
    _program(elsewhere / "python3.12", 127)
    assert bootstrap.interpreter() == "3.12"


def test_what_was_asked_for_wins(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(elsewhere / "python3.11", 0)
    monkeypatch.setenv("PYTHON", "/opt/python")
    assert bootstrap.interpreter() == "/opt/python"
