"""The environments' own backend on a real S3 server: the state is there, and one apply at a time."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from plumbline.servers import services
from plumbline.servers.services import HOST
from toolchain import images
from toolchain.tofu_tools import TERRAFORM, Workspace

pytestmark = [pytest.mark.tofu, pytest.mark.servers]

BUCKET, KEY = "plumbline-tofu-state", "dev/platform.tfstate"
LOCAL = {
    "use_path_style": "true",
    "skip_credentials_validation": "true",
    "skip_requesting_account_id": "true",
    "skip_metadata_api_check": "true",
    "skip_region_validation": "true",
}
"""What a server that is not AWS's needs besides what backend.tf says."""

SLOW = """
variable "note" {}
variable "go" {}

resource "terraform_data" "held" {
  triggers_replace = [var.note]
  provisioner "local-exec" { command = "touch ${var.go}.began; until [ -e ${var.go} ]; do sleep 0.1; done" }
}

output "note" { value = var.note }
"""
"""A root that is applied until the file `go` is there."""


@dataclass(frozen=True)
class Server:
    """Where it is, and its keys."""

    environment: dict[str, str]

    def objects(self) -> list[str]:
        """The objects of the bucket."""
        found = self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [told["Key"] for told in found]

    def client(self):  # type: ignore[no-untyped-def]
        given = {name.lower(): value for name, value in self.environment.items() if "KEY" in name}
        return boto3.client(
            "s3", endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"], region_name="eu-central-1", **given
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """versitygw with one bucket, without versioning: there it refuses a key for ever that was locked and released."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data").mkdir()
    port = services.free_port()
    key, secret = secrets.token_hex(8), secrets.token_urlsafe(24)
    command = [images.go_program("versitygw", images.VERSITYGW, "cmd/versitygw"), "--port", f"{HOST}:{port}"]
    sidecar = folder / "sidecar"
    sidecar.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--region", "eu-central-1", "posix", "--sidecar", sidecar, folder / "data"],
            env={**os.environ, "ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret,
                 "ROOT_ACCESS_KEY_ID": key, "ROOT_SECRET_ACCESS_KEY": secret},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not services.listening(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        environment = {
            "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        server = Server(environment)
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def root(workspace: Workspace, server: Server) -> Path:
    """dev's backend.tf before a root that nobody else has, initialised on the server."""
    where = workspace.folder / "terraform" / "held"
    where.mkdir()
    (where / "backend.tf").write_text((workspace.folder / "terraform/environments/dev/backend.tf").read_text())
    (where / "main.tf").write_text(SLOW)
    given = [f"-backend-config={name}={value}" for name, value in LOCAL.items()]
    done = workspace.run(where, "init", "-no-color", *given, **server.environment)
    assert done.returncode == 0, done.stderr
    return where


def test_one_apply_at_a_time(root: Path, workspace: Workspace, server: Server, tmp_path: Path) -> None:
    go, began = tmp_path / "go", tmp_path / "go.began"

    def arguments(note: str) -> list[str]:
        return ["apply", "-auto-approve", "-no-color", f"-var=note={note}", f"-var=go={go}"]

    tofu = str(workspace.program)
    environment = {**workspace.environment, **server.environment}
    first = subprocess.Popen([tofu, *arguments("one")], cwd=root, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not began.exists():
            assert first.poll() is None and time.monotonic() < deadline, "the first apply has not begun"
            time.sleep(0.1)
        assert f"{KEY}.tflock" in server.objects()
        second = workspace.run(root, *arguments("two"), **server.environment)
        assert second.returncode == 1 and "Error acquiring the state lock" in second.stderr
    finally:
        go.touch()
        assert first.wait(60) == 0
    assert server.objects() == [KEY], "the state is there, and its lock is released"
    third = workspace.run(root, *arguments("two"), **server.environment)
    assert third.returncode == 0, third.stderr
    state = json.loads(server.client().get_object(Bucket=BUCKET, Key=KEY)["Body"].read())
    assert state["outputs"]["note"]["value"] == "two" and state["serial"] > 1


def test_each_root_has_a_state_and_a_lock_of_its_own() -> None:
    backends = sorted(TERRAFORM.rglob("backend.tf"))
    texts = [re.sub(" +", " ", path.read_text()) for path in backends]
    assert {str(path.parent.relative_to(TERRAFORM)) for path in backends} == {
        "bootstrap",
        *(f"environments/{name}" for name in ("dev", "staging", "prod")),
    }
    assert all(f'bucket = "{BUCKET}"' in text and "use_lockfile = true" in text for text in texts)
    assert len({re.findall(r'key = "(.+)"', text)[0] for text in texts}) == len(backends)
