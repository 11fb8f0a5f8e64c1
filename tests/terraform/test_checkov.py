"""checkov finds what is open to the world, and each waiver in terraform/ is one that it asks for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from toolchain import tofu
from toolchain.tofu_tools import TERRAFORM

pytestmark = pytest.mark.tofu

WAIVER = re.compile(r"^\s*#checkov:skip=(\w+):.+\n", re.M)


def test_a_bucket_that_anybody_may_open_is_found(tmp_path: Path) -> None:
    shutil.copytree(TERRAFORM / "modules" / "bucket", tmp_path / "bucket")
    file = tmp_path / "bucket" / "main.tf"
    file.write_text(file.read_text().replace("restrict_public_buckets = true", "restrict_public_buckets = false"))
    code, told = tofu.scan(tmp_path)
    assert code == 1 and "CKV_AWS_56" in told


def test_every_waiver_is_needed(tmp_path: Path) -> None:
    """Without the waivers checkov finds what they waive, and nothing else."""
    shutil.copytree(TERRAFORM, tmp_path / "terraform")
    waived = set()
    for file in (tmp_path / "terraform").rglob("*.tf"):
        waived |= set(WAIVER.findall(file.read_text()))
        file.write_text(WAIVER.sub("", file.read_text()))
    code, told = tofu.scan(tmp_path / "terraform")
    assert code == 1 and set(re.findall(r"^Check: (\w+):", told, re.M)) == waived
