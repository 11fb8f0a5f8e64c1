"""What `make lock` does not write is held against what it does."""

from __future__ import annotations

import re
import tomllib

import pytest

from plumbline.lake.spark import spark_home
from plumbline.settings import ROOT


def test_spark_s_jars_are_those_of_the_pinned_packages() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["stages"]
    pinned = dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?==(\S+)", each).groups() for each in group if "==" in each)
    lines = [line.split() for line in (ROOT / "requirements" / "jars.txt").read_text().splitlines() if line[0] != "#"]
    assert lines and all(re.fullmatch("[0-9a-f]{64}", digest) for _, digest in lines)
    delta = {name: version for org, name, version in (jar.split(":") for jar, _ in lines) if org == "io.delta"}
    assert set(delta.values()) == {pinned["delta-spark"]}
    spark = pinned["pyspark"].rpartition(".")[0]
    assert [name for name in delta if name.startswith("delta-spark")] == [f"delta-spark_{spark}_2.13"]


@pytest.mark.parametrize("name", ["serving.txt", "stages.txt"])
def test_the_lock_of_an_image_is_a_part_of_the_pipeline_s(name: str) -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.M))

    assert pins(name) and pins(name) <= pins("pipeline.txt"), "`make lock` writes all of them"


def test_the_s3_client_is_of_the_version_of_spark_s_own_hadoop() -> None:
    text = (ROOT / "requirements" / "s3-jars.txt").read_text()
    wanted = re.findall(r"^org.apache.hadoop:hadoop-aws:(\S+) [0-9a-f]{64}$", text, re.M)
    assert [f"hadoop-client-api-{version}.jar" for version in wanted] == [
        path.name for path in (spark_home() / "jars").glob("hadoop-client-api-*.jar")
    ]
    assert "io.netty" not in text
