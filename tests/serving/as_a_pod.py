"""A predictor as a pod has it: the arguments of the rendered manifests, on a root that cannot be written to."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from plumbline.product import Product
from plumbline.servers import services
from plumbline.settings import ROOT
from toolchain import manifests


def command(product: Product, folder: Path, port: int) -> list[str]:
    """The predictor's command in prod, with a folder of models and a port of this machine."""
    (runtime,) = (
        made for made in manifests.objects(f"{product.manifests}/overlays/prod") if made["kind"] == "ServingRuntime"
    )
    (container,) = runtime["spec"]["containers"]
    here = {"/mnt/models": str(folder), "0.0.0.0": services.HOST, "8080": str(port), "8081": "0"}  # noqa: S104
    return [sys.executable, "-B", "-m", "plumb", *(here.get(argument, argument) for argument in container["args"])]


def locked(folder: Path) -> dict[str, str]:
    """Variables with which Python imports nothing but this repository and the packages of requirements/serving.txt."""
    lock = set(re.findall(r"^(\S+)==", (ROOT / "requirements" / "serving.txt").read_text(), re.M)) | {"plumbline"}
    refused = {
        module
        for module, names in packages_distributions().items()
        if lock.isdisjoint(re.sub(r"[-_.]+", "-", name).lower() for name in names)
    }
    assert {"kubernetes", "mlflow", "pyspark"} <= refused
    (folder / "sitecustomize.py").write_text(
        f"""import sys

class Lock:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(refused)}:
            raise ModuleNotFoundError(f"{{name}} is not in requirements/serving.txt", name=name)

sys.meta_path.insert(0, Lock())
"""
    )
    return {"PYTHONPATH": str(folder)}


def read_only(command: list[str], *writable: Path) -> list[str]:
    """The command where only these folders can be written to, as in a pod; as it is where no namespace can be made."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        return command
    binds = [f"mount --bind {path} {path}" for path in writable]
    script = " && ".join([*binds, "mount -o remount,ro,bind /", f"! touch {ROOT}/x 2>&-", 'exec "$@"'])
    return ["unshare", "-m", "sh", "-c", script, "sh", *command]
