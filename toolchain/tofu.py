"""Checks terraform/: `make tofu`, or `make tofu ONLY=modules/lake` for what has that in its path.

Each module and environment is initialised, validated and tested in a copy, by OpenTofu itself. A cloud's resources are
held against its provider's schema and mocked; nothing asks a cloud (docs/terraform.md says what that leaves open). Then
checkov reads all of it. A finding is an error: it is mended, or waived where it stands with its reason.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from plumbline.settings import ENVIRONMENTS, settings
from toolchain.binaries import BinariesError
from toolchain.tofu_tools import TERRAFORM, Workspace

STEPS = (("init", "-backend=false"), ("validate",), ("test",))
"""What OpenTofu does in each folder. No backend: the state's bucket is not here."""

CHECKOV = (
    "--framework",
    "terraform",
    "--quiet",
    "--compact",
    "--skip-download",
    "--download-external-modules",
    "false",
)


@dataclass(frozen=True)
class Checked:
    """A folder that was checked: how many of its tests passed, and what failed."""

    name: str
    passed: int
    failure: str | None


def check(workspace: Workspace, where: Path) -> Checked:
    """Initialises, validates and tests one folder, up to the first step that fails."""
    name, passed = str(where.relative_to(workspace.folder / "terraform")), 0
    for step in STEPS:
        done = workspace.run(where, *step, "-no-color")
        told = done.stdout + done.stderr
        if done.returncode:
            return Checked(name, passed, f"`tofu {step[0]}` ended with {done.returncode}:\n{told.strip()}")
        if found := re.search(r"^Success! (\d+) passed", told, re.M):
            passed = int(found[1])
    return Checked(name, passed, None)


def unformatted(workspace: Workspace) -> list[str]:
    """The files that `tofu fmt` would change."""
    done = workspace.run(workspace.folder / "terraform", "fmt", "-check", "-recursive", "-no-color")
    if done.returncode not in (0, 3):
        return [done.stderr.strip()]
    return done.stdout.split()


def scan(folder: Path) -> tuple[int, str]:
    """What checkov says of a folder: its exit code, and its findings or counts."""
    command = [str(ENVIRONMENTS / "checkov" / "bin" / "checkov"), "--directory", str(folder), *CHECKOV]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def main() -> None:
    """Exit code 1 when something is not as it should be, after all of it was said."""
    parser = argparse.ArgumentParser(
        prog="make tofu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", help="what has this in its path, without checkov; default: all")
    only = parser.parse_args().only
    begun, failed = time.monotonic(), False
    try:
        workspace = Workspace(settings().home / "tofu")
    except BinariesError as error:
        sys.exit(f"tofu: {error}")
    for name in unformatted(workspace):
        failed = True
        print(f"  ! {name}: not formatted; `tofu fmt -recursive terraform` does it")
    passed = folders = 0
    for where in workspace.roots():
        if only and not any(part in str(where.relative_to(workspace.folder)) for part in only):
            continue
        checked = check(workspace, where)
        passed, folders = passed + checked.passed, folders + 1
        if checked.failure:
            failed = True
        print(
            f"  {'!' if checked.failure else '·'} {checked.name}: {checked.failure or f'{checked.passed} tests passed'}"
        )
    if not only:
        code, told = scan(TERRAFORM)
        failed = failed or code != 0
        print(told)
    print(f"{folders} folders, {passed} tests passed, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
