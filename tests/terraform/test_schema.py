"""The AWS provider's schema is in force: what the provider would not know, OpenTofu refuses."""

from __future__ import annotations

import pytest

from toolchain import tofu
from toolchain.tofu_tools import Workspace

pytestmark = pytest.mark.tofu


def validated(workspace: Workspace, old: str, new: str, path: str = "modules/bucket/main.tf") -> str:
    """What `tofu validate` says of a module in which one thing is written otherwise."""
    file = workspace.folder / "terraform" / path
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    checked = tofu.check(workspace, file.parent)
    return " ".join((checked.failure or "").replace("│", " ").split())


NO_ARGUMENT = 'An argument named "block_public_acl" is not expected here'
NO_BLOCK = 'At least 1 "versioning_configuration" blocks are required'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("block_public_acls       = true", "block_public_acl = true", NO_ARGUMENT),
        ("bucket_key_enabled = true", 'bucket_key_enabled = "perhaps"', "a bool is required"),
        ('  versioning_configuration { status = "Enabled" }\n', "", NO_BLOCK),
        ('      sse_algorithm     = "aws:kms"\n', "", 'The argument "sse_algorithm" is required'),
        ('resource "aws_s3_bucket_versioning"', 'resource "aws_s3_versioning"', "aws_s3_versioning"),
    ],
    ids=["unknown", "type", "block", "required", "resource"],
)
def test_what_the_schema_does_not_have_is_refused(old: str, new: str, said: str, workspace: Workspace) -> None:
    failure = validated(workspace, old, new)
    assert failure.startswith("`tofu validate` ended with 1") and said in failure


def test_an_attribute_that_no_resource_has_is_refused(workspace: Workspace) -> None:
    told = validated(
        workspace,
        "value       = aws_s3_bucket.this.bucket",
        "value = aws_s3_bucket.this.nam",
        "modules/bucket/outputs.tf",
    )
    assert 'has no argument, nested block, or exported attribute named "nam"' in told


def test_a_test_that_fails_is_told(workspace: Workspace) -> None:
    told = validated(workspace, 'status = "Enabled" }', 'status = "Suspended" }')
    assert told.startswith("`tofu test` ended with 1") and "what is overwritten can be had back" in told


def test_a_file_that_is_not_formatted_is_told(workspace: Workspace) -> None:
    assert tofu.unformatted(workspace) == []
    file = workspace.folder / "terraform" / "modules" / "bucket" / "outputs.tf"
    file.write_text(file.read_text().replace("  value       =", "  value ="))
    assert tofu.unformatted(workspace) == ["modules/bucket/outputs.tf"]


def test_nothing_asks_a_cloud(workspace: Workspace) -> None:
    """Without its mocks a module is not planned: the provider knows schemas and does nothing."""
    where = workspace.folder / "terraform" / "modules" / "bucket"
    assert workspace.run(where, "init", "-no-color").returncode == 0
    given = ["-var=name=n", "-var=key_arn=k", "-var=noncurrent_days=7", "-var=deletable=true"]
    done = workspace.run(where, "plan", "-no-color", *given)
    assert done.returncode == 1 and "is not supported by this plugin" in " ".join(done.stderr.split())
