"""What is taken out of the pipeline's image, and what stays."""

from __future__ import annotations

import zipfile
from pathlib import Path

from toolchain.trim import trim

STAYS = (
    "babel/locale-data/en_US.dat",
    "babel/locale-data/root.dat",
    "botocore/data/endpoints.json",
    "botocore/data/s3/2006-03-01/service-2.json",
    "dbt/include/global_project/macros/tests/where.sql",
    "numpy/core.py",
    "pyspark/jars/spark-sql_2.13-4.2.0.jar",
)
GOES = (
    "babel/locale-data/de_AT.dat",
    "botocore/data/ec2/2016-11-15/service-2.json",
    "feast/ui/index.html",
    "numpy/core/tests/test_core.py",
    "numpy/core/include/numpy.h",
    "pyarrow/libarrow_flight.so.2300",
    "pyspark/jars/hive-metastore-2.3.10.jar",
    "pyspark/jars/kubernetes-client-7.6.1.jar",
)


def test_what_is_opened_stays_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    for name in (*STAYS, *GOES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    jar = tmp_path / "pyspark/jars/rocksdbjni-9.8.4.jar"
    with zipfile.ZipFile(jar, "w") as made:
        for name in ("org/rocksdb/RocksDB.class", "librocksdbjni-linux64.so", "librocksdbjni-win64.dll"):
            made.writestr(name, name)
    for _ in range(2):
        trim(tmp_path)
        assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
            *STAYS,
            "pyspark/jars/rocksdbjni-9.8.4.jar",
        }
    with zipfile.ZipFile(jar) as kept:
        assert kept.namelist() == ["org/rocksdb/RocksDB.class", "librocksdbjni-linux64.so"]
        assert kept.read("librocksdbjni-linux64.so") == b"librocksdbjni-linux64.so"
