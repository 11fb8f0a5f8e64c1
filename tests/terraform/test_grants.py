"""What AWS's roles may do is what the compose stack's keys may do, and pods that take a role are those of k8s/."""

from __future__ import annotations

import json
from typing import Any

import pytest
import s3_keys

from products import ALL
from toolchain import manifests
from toolchain.tofu_tools import Workspace

pytestmark = pytest.mark.tofu

BUCKET, KEY = "plumbline-test", "arn:aws:kms:eu-central-1:111122223333:key/lake"
ENVIRONMENTS = ("dev", "staging", "prod")
SETTINGS = {"PLUMBLINE_LAKE", "PLUMBLINE_STATE"}
SERVICES = {"tasks": "pipeline", "champion": "rollout"}
"""Service accounts that are not called as the service that they are."""

UNBOUND = {"airflow", "scheduler"}
"""Service accounts without a role: Airflow itself touches no bucket."""

Granted = set[tuple[str, str, str]]
"""Service, action, and the folder and prefix that it is allowed below: `lake/serving/`."""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each service's policy as OpenTofu makes it: no provider takes part, so the module is really applied."""
    workspace = Workspace(tmp_path_factory.mktemp("grants") / "tofu")
    where = workspace.folder / "terraform" / "modules" / "grants"
    for arguments in (["init"], ["apply", "-auto-approve", f"-var=bucket={BUCKET}", f"-var=key_arn={KEY}"]):
        done = workspace.run(where, *arguments, "-no-color")
        assert done.returncode == 0, done.stderr
    told = json.loads(workspace.run(where, "output", "-json", "policies").stdout)
    return {service: json.loads(text) for service, text in told.items()}


def of_the_stack() -> Granted:
    """What the compose stack's bucket policies allow; a bucket there is a folder here."""
    granted = set()
    for bucket in s3_keys.MAY:
        for statement in s3_keys.policy(bucket)["Statement"]:  # type: ignore[attr-defined]
            (service,) = statement["Principal"]["AWS"]
            below = statement["Resource"].removeprefix(f"arn:aws:s3:::{bucket}").removeprefix("/").removesuffix("*")
            if statement["Action"] == ["s3:ListBucket"]:
                (pattern,) = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", ["*"])
                below = pattern.removesuffix("*")
            granted |= {(service, action, f"{bucket}/{below}") for action in statement["Action"]}
    return granted


def of_the_roles(policies: dict[str, dict[str, Any]]) -> Granted:
    """What the roles' policies allow with objects; each statement but the key's is read, or the test fails."""
    granted = set()
    for service, policy in policies.items():
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow" and set(statement) <= {"Effect", "Action", "Resource", "Condition"}
            if statement["Resource"] == KEY:
                continue
            if statement["Action"] == ["s3:ListBucket"]:
                assert statement["Resource"] == f"arn:aws:s3:::{BUCKET}"
                patterns = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
            else:
                assert "Condition" not in statement
                patterns = [statement["Resource"].removeprefix(f"arn:aws:s3:::{BUCKET}/")]
            assert all(pattern.endswith("*") for pattern in patterns)
            granted |= {
                (service, action, pattern.removesuffix("*")) for action in statement["Action"] for pattern in patterns
            }
    return granted


def test_a_role_may_what_the_stack_s_key_may(policies: dict[str, dict[str, Any]]) -> None:
    found, wanted = of_the_roles(policies), of_the_stack()
    assert found - wanted == set(), "roles may more than the stack's keys"
    assert wanted - found == set(), "roles may less than the stack's keys"
    assert len(found) > 40 and {service for service, _, _ in found} == set(s3_keys.SERVICES)


def test_who_writes_encrypts_and_who_reads_decrypts(policies: dict[str, dict[str, Any]]) -> None:
    writers = {service for service, action, _ in of_the_stack() if action == "s3:PutObject"}
    for service, policy in policies.items():
        (actions,) = [told["Action"] for told in policy["Statement"] if told["Resource"] == KEY]
        assert set(actions) == {"kms:Decrypt", *(["kms:GenerateDataKey"] if service in writers else [])}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_pods_that_take_a_role_and_the_lake_are_those_of_the_overlays(
    environment: str, workspace: Workspace
) -> None:
    accounts, told = {}, dict[str, set[str]]()
    for path in ("k8s/pipeline", *(product.manifests for product in ALL)):
        for made in manifests.objects(f"{path}/overlays/{environment}"):
            about = made["metadata"]
            if made["kind"] == "ServiceAccount":
                name = about["name"].rpartition("-")[2]
                if name not in UNBOUND:
                    accounts[f"{about['namespace']}/{about['name']}"] = SERVICES.get(name, name)
            for name in SETTINGS & set(made.get("data", {})):
                told.setdefault(name, set()).add(made["data"][name])
    assert set(accounts.values()) == set(s3_keys.SERVICES) - (set() if environment == "prod" else {"rollout"})
    assert set(told) == SETTINGS and all(len(values) == 1 for values in told.values())
    wanted = {} if environment == "dev" else {name: value for name, (value,) in told.items()}  # dev's are k8s/stores
    where = workspace.folder / "terraform" / "environments" / environment
    (written,) = (where / "tests").glob("*.tftest.hcl")
    written.write_text(
        written.read_text()
        + f"""
run "k8s" {{
  assert {{
    condition     = jsonencode(output.service_accounts) == jsonencode({json.dumps(accounts)})
    error_message = "other service accounts than in k8s/"
  }}
  assert {{
    condition     = alltrue([for name, value in {json.dumps(wanted)} : output.settings[name] == value])
    error_message = "another bucket than in the overlays' settings.env, lake.env and tasks.env"
  }}
}}
"""
    )
    for arguments in (["init", "-backend=false"], ["test"]):
        done = workspace.run(where, *arguments, "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr
    assert 'run "k8s"... pass' in done.stdout
