"""What others' rules say of k8s/ and of the Dockerfiles: kube-score and checkov, a part of `make lint`.

Both know Kubernetes' own kinds only. A predictor's pods stand in a Rollout, an InferenceService and a ServingRuntime:
the judges get the Deployment that these come to. A finding is mended, or waived with its reason in `.judges.yaml`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.settings import ENVIRONMENTS, ROOT
from toolchain import manifest_tools

WAIVERS = ".judges.yaml"
NOT_A_PASS = {1: "critical", 5: "warning", 7: "almost"}
"""kube-score's grades below its best, 10."""

CHECKOV = ("--quiet", "--compact", "--skip-download", "--output", "json")
"""Without asking its maker's server for anything."""

DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}

Object = dict[str, Any]


class JudgeError(PlumblineError):
    """A judge found what is not waived, a waiver has nothing to waive, or a judge could not read what it was given."""


@dataclass(frozen=True, order=True)
class Finding:
    """What a judge says of an object (`Deployment churn-prod/churn-judge`) or of a Dockerfile (its path)."""

    judge: str
    check: str
    where: str
    words: str = ""


def check(objects: list[Object], dockerfiles: Iterable[str], root: Path = ROOT) -> str:
    """One sentence of what was judged. Raises JudgeError with what is not waived, or waived in vain."""
    found = {*kube_score(objects), *checkov(objects), *checkov_dockerfiles(dockerfiles, root)}
    waived = waivers(root)
    used = {waiver for waiver in waived for finding in found if _covers(waiver, finding)}
    left = [finding for finding in sorted(found) if not any(_covers(waiver, finding) for waiver in waived)]
    told = [f"{one.judge} {one.check}: {one.where}: {one.words}" for one in left]
    told += [f"{WAIVERS}: {w.judge} {w.check} {w.where}: nothing is found there" for w in sorted(set(waived) - used)]
    if told:
        raise JudgeError("\n".join([*told, f"mend it, or waive it in {WAIVERS} with a reason"]))
    return f"kube-score and checkov find nothing but what {WAIVERS} waives: {len(waived)} lines, each with its reason"


def waivers(root: Path = ROOT) -> dict[Finding, str]:
    """The waivers and their reasons; `where` is a pattern. Raises JudgeError for one without a reason."""
    import yaml

    listed = yaml.safe_load((root / WAIVERS).read_text())
    found = {Finding(judge, *key.split(" ", 1)): why for judge, keys in listed.items() for key, why in keys.items()}
    for waiver, why in found.items():
        if not (isinstance(why, str) and why.strip()):
            raise JudgeError(f"{WAIVERS}: {waiver.judge} {waiver.check} {waiver.where}: no reason")
    return found


def kube_score(objects: list[Object]) -> set[Finding]:
    """What kube-score says of all objects together: a Service is held against the pods of the others."""
    newest = list(manifest_tools.KUBERNETES)[-1].rpartition(".")[0]
    command = [str(manifest_tools.find("kube-score")), "score", "--kubernetes-version", newest, "-o", "json", "-"]
    judged = _answer("kube-score", command, given=_dumped(in_known_kinds(objects))) or []  # null: nothing it knows
    return {
        Finding("kube-score", check["check"]["id"], _where(made["type_meta"]["kind"], made["object_meta"]), said)
        for made in judged
        for check in made["checks"]
        if not check["skipped"] and (said := _said(check))
    }


def checkov(objects: list[Object]) -> set[Finding]:
    """What checkov says of the objects."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rendered.yaml").write_text(_dumped(in_known_kinds(objects)))
        failed = _checkov("kubernetes", "--directory", folder)
    return {
        Finding("checkov", each["check_id"], _where(*_named(each["resource"])), each["check_name"]) for each in failed
    }


def checkov_dockerfiles(paths: Iterable[str], root: Path = ROOT) -> set[Finding]:
    """What checkov says of Dockerfiles, their paths below `root`."""
    files = [str(root / path) for path in paths]
    failed = _checkov("dockerfile", "--file", *files)
    return {
        Finding("checkov", each["check_id"], str(Path(each["file_abs_path"]).relative_to(root)), each["check_name"])
        for each in failed
    }


def in_known_kinds(objects: list[Object]) -> list[Object]:
    """The objects, each Rollout as the Deployment that it comes to: the pod of its InferenceService's runtime."""
    named = {(made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"]): made for made in objects}

    def known(made: Object) -> Object:
        spec, namespace = made.get("spec", {}), made["metadata"].get("namespace")
        if made["kind"] == "HorizontalPodAutoscaler" and spec["scaleTargetRef"]["kind"] == "Rollout":
            target = {**DEPLOYMENT, "name": spec["scaleTargetRef"]["name"]}
            return {**made, "spec": {**spec, "scaleTargetRef": target}}
        if made["kind"] != "Rollout":
            return made
        service = spec["workloadRef"]["name"].removesuffix("-predictor")  # KServe's name for its Deployment
        pod = dict(named["InferenceService", namespace, service]["spec"]["predictor"])
        runtime = named["ServingRuntime", namespace, pod.pop("model")["runtime"]]["spec"]
        del pod["minReplicas"]  # the Rollout's pods are as many as the autoscaler says
        pod |= {"containers": runtime["containers"], "volumes": runtime["volumes"]}
        stable = spec["strategy"]["canary"]["stableMetadata"]["labels"]
        labels = {**runtime["labels"], **spec["selector"]["matchLabels"], **stable}
        template = {"metadata": {"labels": labels}, "spec": pod}
        rolling = {"selector": spec["selector"], "strategy": {"type": "RollingUpdate"}, "template": template}
        return {**made, **DEPLOYMENT, "spec": rolling}

    return [known(made) for made in objects]


def _covers(waiver: Finding, finding: Finding) -> bool:
    same = (waiver.judge, waiver.check) == (finding.judge, finding.check)
    return same and fnmatchcase(finding.where, waiver.where)


def _where(kind: str, metadata: Object) -> str:
    return f"{kind} {metadata.get('namespace', '')}/{metadata['name']}"


def _named(resource: str) -> tuple[str, Object]:
    """checkov's `Deployment.churn-prod.churn-judge`."""
    kind, namespace, name = resource.split(".", 2)
    return kind, {"namespace": namespace, "name": name}


def _said(check: Object) -> str:
    """How bad it is and a check's comments of all containers; empty when it has none to make."""
    said = {": ".join(filter(None, (each["path"], each["summary"]))) for each in check["comments"] or []}
    grade = NOT_A_PASS.get(check["grade"])
    return f"{grade}: {', '.join(sorted(said))}" if grade else ""


def _checkov(framework: str, *what: str) -> list[Object]:
    command = [str(ENVIRONMENTS / "checkov" / "bin" / "checkov"), *what, "--framework", framework, *CHECKOV]
    answer = _answer("checkov", command)
    if answer.get("summary", answer)["parsing_errors"]:
        raise JudgeError(f"checkov cannot read {', '.join(answer['results']['parsing_errors'])}")
    failed: list[Object] = answer["results"]["failed_checks"] if "results" in answer else []
    return failed


def _answer(judge: str, command: list[str], given: str | None = None) -> Any:
    """A judge's JSON; that it found something is no error of its."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        return json.loads(done.stdout)
    except FileNotFoundError:
        raise JudgeError(f"{command[0]} is not there: `make manifest-tools` installs it") from None
    except ValueError:
        raise JudgeError(f"{judge} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}") from None


def _dumped(objects: list[Object]) -> str:
    import yaml

    text: str = yaml.dump_all(objects, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return text
