"""What is generated and committed: the rules of Prometheus and the configuration of Alertmanager, on a laptop as files,
in a cluster as the objects that the Prometheus operator and Grafana's sidecar look for.

`make generate` writes them, `make lint` fails when they are not what contracts and code give.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from observability import alertmanager, cluster_rules, house_rules, kubernetes, slo_rules
from observability.rule import Group
from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.settings import ROOT
from toolchain import binaries

RULES = "observability/prometheus/rules"
CONFIG = "observability/alertmanager/alertmanager.yml"
DASHBOARDS = "observability/grafana/dashboards"
CLUSTER = "k8s/platform/monitoring/generated"
HEADER = "# Generated from {source}\n# by `make generate`. Do not edit: `make lint` compares.\n"


class Drifted(PlumblineError):
    """What is committed is not what would be generated, or Prometheus' own tools refuse it."""


def texts() -> dict[str, str]:
    """Every generated file, its path in the repository and its text."""
    return {
        **cluster_texts(),
        f"{RULES}/promises.yml": rules(slo_rules.groups(), "contracts/*.odcs.yaml and observability/slo_rules.py"),
        f"{RULES}/house.yml": rules(house_rules.groups(), "observability/house_rules.py"),
        CONFIG: dumped(alertmanager.config(), "contracts/*.odcs.yaml and observability/alertmanager.py"),
    }


def cluster_texts() -> dict[str, str]:
    """The same rules, those of a cluster alone, and the committed dashboards, as Kubernetes objects."""
    found = {}
    for name, module in (("cluster", cluster_rules), ("house", house_rules), ("promises", slo_rules)):
        source = f"contracts/*.odcs.yaml and {module.__name__.replace('.', '/')}.py"
        found[f"{CLUSTER}/rules-{name}.yaml"] = dumped(kubernetes.rule(name, module.groups()), source)
    for board in sorted((ROOT / DASHBOARDS).glob("*/*.json")):
        made = kubernetes.dashboard(board.stem, board.read_text())
        found[f"{CLUSTER}/dashboard-{board.stem}.yaml"] = dumped(made, str(board.relative_to(ROOT)))
    return found


def rules(groups: list[Group], source: str) -> str:
    """A rules file."""
    return dumped({"groups": [group.as_dict() for group in groups]}, source)


def dumped(document: Mapping[str, Any], source: str) -> str:
    """YAML with the header that says what it was made from."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True  # a reader of one receiver should not have to look for another

    Dumper.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
        ),
    )
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return HEADER.format(source=source) + text


def write() -> list[str]:
    """Writes what differs; the paths of it."""
    changed = [path for path, text in texts().items() if not _same(path, text)]
    for path in changed:
        files.write_whole(ROOT / path, texts()[path])
    return changed


def check() -> str:
    """One sentence of what was checked. Raises Drifted when a file is another or a tool refuses one."""
    if other := [path for path, text in texts().items() if not _same(path, text)]:
        raise Drifted(f"{', '.join(other)}: not what contracts and code give; `make generate` writes them anew")
    promtool, amtool = binaries.find("promtool"), binaries.find("amtool")
    if promtool is None or amtool is None:
        return f"generated files are up to date; not checked by promtool and amtool: {binaries.HOW}"
    with tempfile.TemporaryDirectory() as folder:
        cluster = Path(folder) / "cluster.yml"
        cluster.write_text(rules(cluster_rules.groups(), cluster_rules.__name__))
        refused(promtool, "check", "rules", "--lint-fatal", *sorted((ROOT / RULES).glob("*.yml")), cluster)
    refused(amtool, "check-config", str(ROOT / CONFIG))
    return "generated files are up to date, promtool and amtool take them"


def refused(*command: str | Path) -> None:
    """Raises Drifted with what the tool says when it ends with an error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Drifted(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))}: {done.stdout}{done.stderr}")


def _same(path: str, text: str) -> bool:
    return (ROOT / path).exists() and (ROOT / path).read_text() == text
