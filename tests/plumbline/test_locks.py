"""What `make lock` does not write is held against what it does."""

from __future__ import annotations

import re
import tomllib

from plumbline.settings import ROOT


def test_spark_s_jars_are_those_of_the_pinned_packages() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["pipeline"]
    pinned = dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?==(\S+)", each).groups() for each in group if "==" in each)
    lines = [line.split() for line in (ROOT / "requirements" / "jars.txt").read_text().splitlines() if line[0] != "#"]
    assert lines and all(re.fullmatch("[0-9a-f]{64}", digest) for _, digest in lines)
    delta = {name: version for org, name, version in (jar.split(":") for jar, _ in lines) if org == "io.delta"}
    assert set(delta.values()) == {pinned["delta-spark"]}
    spark = pinned["pyspark"].rpartition(".")[0]
    assert [name for name in delta if name.startswith("delta-spark")] == [f"delta-spark_{spark}_2.13"]
