"""datacontract-cli, in its own environment, takes our contracts and names the place in one that is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from plumbline.settings import ROOT

PYTHON = Path(sys.prefix).parent / "contracts" / "bin" / "python"


def read(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-I", str(ROOT / "toolchain" / "second_reader.py"), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_it_takes_every_contract() -> None:
    files = sorted((ROOT / "contracts").glob("*.odcs.yaml"))
    done = read(*files)
    assert (done.returncode, done.stdout) == (0, f"datacontract-cli takes all {len(files)} contracts\n"), done.stderr


def test_what_is_no_contract_is_named_with_its_place(tmp_path: Path) -> None:
    text = (ROOT / "contracts" / "shop.orders.odcs.yaml").read_text()
    bad = tmp_path / "shop.orders.odcs.yaml"
    bad.write_text(text.replace("dataProduct: churn", "dataProduct: [churn]"))
    done = read(bad)
    assert done.returncode == 1
    assert str(bad) in done.stdout and "dataProduct" in done.stdout and "is not of type 'string'" in done.stdout
