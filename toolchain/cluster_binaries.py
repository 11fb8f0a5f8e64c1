"""A Kubernetes cluster's binaries and CRDs, built from pinned Go modules into PLUMBLINE_CACHE/cluster.

`make cluster-binaries`. No container engine, no image: Kubernetes' own servers with a node's kubelet and proxy, Argo
Rollouts' and KServe's controllers, Argo CD, CoreDNS, kube-router and Sigstore's policy-controller are compiled by
`go build`; etcd is Debian's.
What is pinned here is the modules that are built or read, by version and checksum (Go's own `h1:`). What they need is
resolved by minimal version selection, which gives the same list each time, and held against the checksums in their
makers' go.sum and Go's checksum database, so that no go.mod of our own has to be kept. Modules and the compiler's cache
are deleted when all is built.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from toolchain import binaries
from toolchain.binaries import BinariesError
from toolchain.go_modules import Go

KUBERNETES, ROLLOUTS, KSERVE = "k8s.io/kubernetes", "github.com/argoproj/argo-rollouts", "github.com/kserve/kserve"
ARGO_CD = "github.com/argoproj/argo-cd/v3"
COREDNS, KUBE_ROUTER = "github.com/coredns/coredns", "github.com/cloudnativelabs/kube-router/v2"
POLICIES = "github.com/sigstore/policy-controller"
MODULES = {
    KUBERNETES: ("v1.34.4", "h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk="),
    ROLLOUTS: ("v1.9.2", "h1:NaAtrUjjm9AFAyurAEFRJjP54mk98s8007B3vsdFEbI="),
    KSERVE: ("v0.16.0", "h1:kDkcAU5VMiZf4zhdDXH+UdAIgzXhs10GMv0d9r4qvTs="),
    "istio.io/api": ("v1.31.1", "h1:5Yb5ihcz4YQsCkciusK7DnFpBMwRB6EFWeUKH1Atuyk="),
    ARGO_CD: ("v3.1.9", "h1:9P9vJKo1RGWu6mtQnGu61r+0h3XKlA2j3kVhwogUQ/0="),
    COREDNS: ("v1.12.4", "h1:rIMnjPvB02drP18DTlJJb1vGkc8Tyl8fe7NFnnSv2lU="),
    KUBE_ROUTER: ("v2.1.0", "h1:xWsptKtmZ44L+NjwFKoFAFlVdxCz8fka9A/eYJe95Ok="),
    POLICIES: ("v0.13.1", "h1:Woy+6bQ7pT/0m3/PSO2RtDxSHKBZ/8iHpCZFcZJThM8="),
    "github.com/external-secrets/external-secrets": ("v0.20.4", "h1:HhNAjWfFEshhItphr28SGsHzf2bUP7uDAOVLg76uNAg="),
    "github.com/prometheus-operator/prometheus-operator": (
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    ),
}
"""What is built or read, by version and checksum. No newer controller of KServe has been tried."""

STAGING = "v0.34.4"
"""The version of Kubernetes' own libraries that belongs to its v1.34.4."""

CRDS = {
    "kserve": (KSERVE, "config/crd/full/serving.*.yaml"),
    "istio": ("istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"),
    "rollouts": (ROLLOUTS, "manifests/crds/*-crd.yaml"),
    "argocd": (ARGO_CD, "manifests/crds/*-crd.yaml"),
    "secrets": (
        "github.com/external-secrets/external-secrets",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    "prometheus": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/*.coreos.com_*",
    ),
    "policies": (POLICIES, "config/300-*.yaml"),
}
"""Where CRDs lie in the modules; a file here is named after what is before the colon."""

INSTALLED = {
    "kserve-webhooks.yaml": (KSERVE, "config/webhook/manifests.yaml"),
    "kserve-config.yaml": (KSERVE, "config/configmap/inferenceservice.yaml"),
    "policy-webhooks.yaml": (POLICIES, "config/500-webhook-configuration.yaml"),
    "policy-kinds-webhooks.yaml": (POLICIES, "config/501-policy-webhook-configurations.yaml"),
}
"""What an installation of KServe and of policy-controller brings besides its CRDs, and where its module has it."""

COMMANDS = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "rollouts-controller": "github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
    "kserve-manager": "github.com/kserve/kserve/cmd/manager",
    "argocd": f"{ARGO_CD}/cmd",
    "coredns": f"{COREDNS}/coremain",
    "kube-router": f"{KUBE_ROUTER}/cmd/kube-router",
    "policy-controller": f"{POLICIES}/cmd/webhook",
}
TOGETHER = {
    "kubernetes": (KUBERNETES, ROLLOUTS),
    "kserve": (KSERVE,),
    "argocd": (ARGO_CD,),
    "coredns": (COREDNS,),
    "kube-router": (KUBE_ROUTER,),
    "policy-controller": (POLICIES,),
}
"""Modules that are resolved as one: each list has versions of its own of what it needs."""

PLUGINS = ("errors", "health", "ready", "cache", "kubernetes", "forward")
"""What of CoreDNS a cluster's names need, in the order in which they are asked; its own program has more."""

PORTS = (
    ("        8443,", " webhook.PortFromEnv(8443),"),
    ("signals.NewContext()", "sharedmain.WithHealthProbesDisabled(signals.NewContext())"),
)
"""What in policy-controller's program is written anew: nobody can choose the ports of its webhooks and its probes."""

NAMES = ("etcd", *COMMANDS)
UNOPTIMISED = ("k8s.io/kubernetes/...", "k8s.io/kube-aggregator/...", "github.com/argoproj/...")
"""Compiled without optimisation, which takes a third less time; nothing here is busy enough to tell. All of
policy-controller is."""


def folder() -> Path:
    """Where the binaries (`bin/`), CRDs (`crds/`) and the INSTALLED files lie."""
    return binaries.folder().parent / "cluster"


def find(name: str) -> Path:
    """The binary of that name in NAMES. Raises BinariesError when it is not built."""
    found = folder() / "bin" / name
    if not found.exists():
        raise BinariesError(f"{found} is not there: `make cluster-binaries` builds it")
    return found


def missing() -> list[str]:
    """What lacks, or was made from other versions than are pinned here."""
    stamps = folder() / "stamps"
    return [name for name in ("crds", *NAMES) if not _stamped(stamps / name, _pin(name))]


def build() -> None:
    """Builds what lacks; killed half way, it goes on where it was. Raises BinariesError."""
    lacking = missing()
    if not lacking:
        return
    go = Go(folder() / "build")
    for made in ("bin", "stamps"):
        (folder() / made).mkdir(exist_ok=True)
    begun = time.monotonic()
    for name in lacking:
        started, before = time.monotonic(), _cpu()
        print(f"  · {'fetching' if name in ('etcd', 'crds') else 'building'} {name}", flush=True)
        if name == "etcd":
            binaries.fetch_one("etcd-server", "etcd", folder() / "bin")
        elif name == "crds":
            _collect_crds(go)
        else:
            _compile(go, name)
        spent = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu() - before}
        (folder() / "stamps" / f"{name}.json").write_text(json.dumps(spent))
        (folder() / "stamps" / name).write_text(_pin(name))
        print(f"    {name}: {spent['seconds']:.0f} s", flush=True)
    size = _size(folder() / "build")
    shutil.rmtree(folder() / "build")
    print(f"  {folder()}: {_size(folder()):,} MB, built in {time.monotonic() - begun:.0f} s; {size:,} MB deleted")


def costs() -> list[str]:
    """What the binaries on this machine cost to build, a sentence a thing."""
    spent = {name: json.loads((folder() / "stamps" / f"{name}.json").read_text()) for name in (*NAMES, "crds")}
    cpu = sum(each["cpu_seconds"] for each in spent.values())
    told = ", ".join(f"{name} {each['cpu_seconds']:.0f}" for name, each in spent.items())
    return [f"`make cluster-binaries`, once: {cpu:.0f} CPU-seconds ({told}), {_size(folder()):,} MB kept"]


def _cpu() -> float:
    """CPU-seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _pin(name: str) -> str:
    """What a binary, or the CRDs, are made of."""
    if name == "crds":
        made_of: list[Any] = [CRDS, INSTALLED, [MODULES[module] for module, _ in CRDS.values()]]
    elif name == "etcd":
        made_of = [name]
    else:
        made_of = [[MODULES[module] for module in _together(name)[1]], STAGING, UNOPTIMISED]
        made_of += [PLUGINS] if name == "coredns" else [PORTS] if name == "policy-controller" else []
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _together(name: str) -> tuple[str, tuple[str, ...]]:
    return next(found for found in TOGETHER.items() if COMMANDS[name].startswith(found[1]))


def _stamped(stamp: Path, pin: str) -> bool:
    return stamp.exists() and stamp.read_text() == pin


def _compile(go: Go, name: str) -> None:
    of, together = _together(name)
    work = folder() / "build" / of
    if not (work / "imports.go").exists():
        work.mkdir(exist_ok=True)
        sources = {module: go.module(module, *MODULES[module]) for module in together}
        (work / "go.mod").write_text(go_mod(sources))
        sums = {line for source in sources.values() for line in (source / "go.sum").read_text().splitlines()}
        (work / "go.sum").write_text("".join(f"{line}\n" for line in sorted(sums)))
        imported = [path for path in COMMANDS.values() if path.startswith(together)]
        lines = "".join(f'import _ "{path}"\n' for path in imported)
        (work / "imports.go").write_text(f"//go:build imports\n\npackage imports\n\n{lines}")
        if of in OWN:
            (work / "own").mkdir()
            (work / "own" / "main.go").write_text(OWN[of](sources))
    version = MODULES[KUBERNETES][0]
    major, minor = version.removeprefix("v").split(".")[:2]
    stamp = "k8s.io/component-base/version.git"
    link = f"-s -w -X {stamp}Version={version} -X {stamp}Major={major} -X {stamp}Minor={minor}"
    link += f" -X {ARGO_CD}/common.version={MODULES[ARGO_CD][0].removeprefix('v')}"
    plain = [f"-gcflags={pattern}=-N -l" for pattern in (("all",) if of == "policy-controller" else UNOPTIMISED)]
    made = folder() / "build" / f"{name}.made"
    package = "./own" if of in OWN else COMMANDS[name]
    go.run(["build", "-mod=mod", "-trimpath", *plain, f"-ldflags={link}", "-o", str(made), package], work)
    made.replace(folder() / "bin" / name)


def _coredns(_: dict[str, Path]) -> str:
    """CoreDNS with PLUGINS, by the way that it documents."""
    imports = "".join(f'\t_ "{COREDNS}/plugin/{name}"\n' for name in PLUGINS)
    named = ", ".join(f'"{name}"' for name in PLUGINS)
    return (
        f'package main\n\nimport (\n\t"{COREDNS}/core/dnsserver"\n\t"{COREDNS}/coremain"\n{imports})\n\n'
        f"func init() {{ dnsserver.Directives = []string{{{named}}} }}\n\nfunc main() {{ coremain.Run() }}\n"
    )


def _policy_controller(sources: dict[str, Path]) -> str:
    """Its own program, with PORTS."""
    text = (sources[POLICIES] / "cmd" / "webhook" / "main.go").read_text()
    for old, new in PORTS:
        if text.count(old) != 1:
            raise BinariesError(f"{POLICIES}: its program has `{old.strip()}` {text.count(old)} times, expected once")
        text = text.replace(old, new)
    return text


OWN = {"coredns": _coredns, "policy-controller": _policy_controller}
"""Whose `main` is written here."""


def go_mod(sources: dict[str, Path]) -> str:
    """A module that requires the sources, with the replacements that they make, which hold in a main module only."""
    require = [f"{module} {MODULES[module][0]}" for module in sources]
    replace: dict[str, str] = {}
    oldest = "1.24.0"
    for source in sources.values():
        text = (source / "go.mod").read_text()
        for line in re.findall(r"^(?:\t|replace )(\S+ => \S+.*)$", text, re.MULTILINE):
            old, _, new = line.partition(" => ")
            replace[old] = f"{old} {STAGING}" if new.startswith("./staging") or re.search(r" v0\.34\.", new) else new
        found = re.findall(r"^go (\S+)$", text, re.MULTILINE)[0]
        oldest = max(oldest, found, key=lambda known: [int(part) for part in known.split(".")])
    lines = ["module plumbline/cluster", f"go {oldest}", *(f"require {each}" for each in require)]
    return "\n".join([*lines, *(f"replace {old} => {new}" for old, new in sorted(replace.items())), ""])


def _collect_crds(go: Go) -> None:
    made = folder() / "build" / "crds"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for name, (module, pattern) in CRDS.items():
        if not (found := sorted(go.module(module, *MODULES[module]).glob(pattern))):
            raise BinariesError(f"{module}@{MODULES[module][0]} has no {pattern}")
        for crd in (crd for path in found for crd in documents(path.read_text())):
            if crd.get("kind") == "CustomResourceDefinition":
                (made / f"{name}-{crd['metadata']['name']}.json").write_text(json.dumps(crd))
    for name, (module, path) in INSTALLED.items():
        (folder() / name).write_bytes((go.module(module, *MODULES[module]) / path).read_bytes())
    shutil.rmtree(folder() / "crds", ignore_errors=True)
    made.rename(folder() / "crds")


def documents(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream, in which `=` is a string, as the Prometheus operator means it."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """With one more rule."""

    Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))
    return [found for found in yaml.load_all(text, Loader) if found]


def _size(path: Path) -> int:
    """Megabytes of a folder."""
    return sum(found.stat().st_size for found in path.rglob("*") if found.is_file()) // 1_000_000


def main() -> None:
    """Builds what lacks; exit code 1 with the reason when it cannot be built."""
    try:
        build()
    except BinariesError as error:
        sys.exit(f"cluster-binaries: {error}")


if __name__ == "__main__":
    main()
