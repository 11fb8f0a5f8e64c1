"""The compose stack's files, without an engine: what each service may do, what .env has to hold, what keys may do."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from plumbline.settings import ROOT
from toolchain import compose, images

sys.path.insert(0, str(ROOT / "docker" / "stack"))
import s3_keys


class Loader(yaml.SafeLoader):
    """YAML with Compose's tag that a list replaces the one before it, where it would be added to."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))

STACK: dict[str, Any] = yaml.safe_load((ROOT / compose.FILES[0]).read_text())
LOCAL: dict[str, Any] = yaml.load((ROOT / compose.FILES[1]).read_text(), Loader)  # noqa: S506
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
RUNNING = [name for name, told in SERVICES.items() if told["restart"] != "no"]
UNASKED = {"rollout", "kafka-exporter", "stream", "marquez-web", "spark-worker"}
"""Services that nobody waits for."""


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    told = SERVICES[name]
    assert told["read_only"] is True and told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    root = told["user"].startswith("0:")
    assert root == (name == "volumes") and told.get("cap_add", []) == (["CHOWN"] if root else [])
    assert not root or told["network_mode"] == "none"
    assert all(port.startswith("127.0.0.1:") for port in told.get("ports", []))
    assert not told.get("privileged") and "/var/run/docker.sock" not in json.dumps(told)


@pytest.mark.parametrize("name", RUNNING)
def test_what_keeps_running_has_a_limit_and_is_asked_for_its_health(name: str) -> None:
    assert "mem_limit" in SERVICES[name]
    assert ("healthcheck" in SERVICES[name]) == (name not in UNASKED)


def test_images_have_exact_versions_or_are_ours() -> None:
    for told in SERVICES.values():
        name = str(told["image"])
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-plumbline/\w+:local\}|[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*", name), name


def test_the_local_file_swaps_services_that_are_there_for_images_that_are_built() -> None:
    assert set(LOCAL["services"]) <= set(SERVICES)
    for told in LOCAL["services"].values():
        if image := told.get("image"):
            assert image.removeprefix("plumbline/").removesuffix(":local") in images.LOCAL
        else:
            assert told["profiles"] == ["pulled"]


def test_only_what_shows_pages_reaches_a_network_that_leads_out() -> None:
    open_networks = {name for name, told in STACK["networks"].items() if not (told or {}).get("internal")}
    assert open_networks == {"pages"}
    published = {name for name, told in SERVICES.items() if told.get("ports")}
    assert published == {name for name, told in SERVICES.items() if "pages" in told.get("networks", [])}


def test_predictors_reach_neither_the_day_nor_the_registry() -> None:
    for name in ("churn-stable", "churn-canary", "churn-judge", "envoy"):
        assert not {"platform", "data"} & set(SERVICES[name]["networks"])
    environment = SERVICES["churn-stable"]["environment"]
    assert not {"PLUMBLINE_STATE", "PLUMBLINE_MLFLOW_URL", "PLUMBLINE_SIGNING_KEY", "PLUMBLINE_SHOP_URL"} & set(
        environment
    )


def test_secrets_are_written_once_for_their_owner(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    assert compose.write_secrets(file) == compose.names()
    first = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert compose.write_secrets(file) == [] and file.read_text() == first
    file.write_text("\n".join(line for line in first.splitlines() if not line.startswith("MLFLOW_PASSWORD=")) + "\n")
    assert compose.write_secrets(file) == ["MLFLOW_PASSWORD"]


def test_half_a_pair_of_signing_keys_becomes_a_whole_one_and_what_was_signed_stays_trusted(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    compose.write_secrets(file)
    before = compose.read_secrets(file)
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("SIGNING_KEY=")))
    assert compose.write_secrets(file) == ["SIGNING_KEY", "VERIFY_KEY"]
    after = compose.read_secrets(file)
    private, newest = after["SIGNING_KEY"].replace("\\n", "\n"), after["VERIFY_KEY"].partition(compose.END)
    public = (newest[0] + newest[1]).replace("\\n", "\n")
    made = serialization.load_pem_private_key(private.encode(), None).public_key()
    assert made == serialization.load_pem_public_key(public.encode()) and newest[2] == before["VERIFY_KEY"]


def test_keys_of_a_backup_are_trusted_beside_the_stacks_own(tmp_path: Path) -> None:
    ours, theirs = tmp_path / ".env", tmp_path / "theirs"
    compose.write_secrets(ours)
    compose.write_secrets(theirs)
    own, their = (compose.read_secrets(path)["VERIFY_KEY"] for path in (ours, theirs))
    compose.trust(ours, their + own)
    assert compose.read_secrets(ours)["VERIFY_KEY"] == own + their
    compose.trust(ours, their)
    assert compose.read_secrets(ours)["VERIFY_KEY"] == own + their, "once"


def test_a_password_without_quotes_is_one_and_is_changed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('MLFLOW_PASSWORD=mine\nS3_ROOT_SECRET="theirs" # by hand\n')
    assert not {"MLFLOW_PASSWORD", "S3_ROOT_SECRET"} & set(compose.write_secrets(file))
    assert compose.read_secrets(file)["MLFLOW_PASSWORD"] == "mine"
    assert compose.read_secrets(file)["S3_ROOT_SECRET"] == "theirs"
    compose.write_secrets(file, rotate=True)
    told = file.read_text()
    assert "mine" not in told and told.count("MLFLOW_PASSWORD=") == told.count("S3_ROOT_SECRET=") == 1


def test_a_file_that_others_may_read_is_closed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    compose.write_secrets(file)
    file.chmod(0o644)
    assert compose.write_secrets(file) == [] and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_somebody_else_wrote_into_env_stays_there(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# two of them\nPREDICTORS=2\n")
    compose.write_secrets(file)
    compose.write_secrets(file, rotate=True)
    compose.retire_signing_key(file)
    assert file.read_text().endswith('"\n# two of them\nPREDICTORS=2\n') and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_rotated_secrets_are_new_and_the_old_signature_is_trusted_until_its_key_is_retired(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    compose.write_secrets(file)
    before = compose.read_secrets(file)
    compose.write_secrets(file, rotate=True)
    after = compose.read_secrets(file)
    assert {name for name in before if before[name] == after[name]} == set(compose.STAYING)
    both = after["VERIFY_KEY"]
    assert both.endswith(before["VERIFY_KEY"]) and both.count("BEGIN PUBLIC KEY") == 2
    compose.retire_signing_key(file)
    newest = compose.read_secrets(file)
    assert newest["VERIFY_KEY"] + before["VERIFY_KEY"] == both
    assert {name for name in after if newest[name] != after[name]} == {"VERIFY_KEY"}


def test_the_signing_keys_belong_together(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    compose.write_secrets(file)
    told = compose.read_secrets(file)
    private, public = (told[name].replace("\\n", "\n").encode() for name in compose.KEYS)
    made = serialization.load_pem_private_key(private, None).public_key()
    assert made == serialization.load_pem_public_key(public)


def test_a_predictors_key_reads_models_and_appends_to_its_log_and_no_more() -> None:
    granted = {
        (bucket, prefix, action)
        for bucket, rows in s3_keys.MAY.items()
        for service, actions, prefix in rows
        if service == "predictor"
        for action in actions
    }
    assert granted == {
        *(("models", "", action) for action in s3_keys.READ),
        *(("lake", "serving/predictions/", action) for action in (*s3_keys.READ, *s3_keys.WRITE)),
    }


@pytest.mark.parametrize("bucket", s3_keys.MAY)
def test_a_policy_names_a_service_and_a_place_in_its_bucket(bucket: str) -> None:
    keys = [f"{service}-{generation}" for service in s3_keys.SERVICES for generation in ("old", "new")]
    for statement in s3_keys.policy(bucket, keys)["Statement"]:  # type: ignore[attr-defined]
        new, old = statement["Principal"]["AWS"]
        service = new.removesuffix("-new")
        assert service in s3_keys.SERVICES and old == f"{service}-old" and statement["Effect"] == "Allow"
        assert statement["Resource"].startswith(f"arn:aws:s3:::{bucket}")
        assert not any("*" in action for action in statement["Action"])


def test_the_picture_of_the_stack_is_the_file_s() -> None:
    told = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "compose.md").read_text(), re.DOTALL)
    assert told and told[1] == compose.picture(), "`python -m toolchain.compose picture`"


def test_what_ends_by_itself_is_known() -> None:
    assert {name for name, told in SERVICES.items() if told["restart"] == "no"} == set(compose.ONCE)
