"""Takes out of environments what the pipeline's image never opens: `python trim.py SITE_PACKAGES…`. Standard library.

Tests and headers; Feast's web pages; Arrow Flight; ONNX Runtime for C and its tools; Babel's languages but English;
AWS' services but those that S3 needs; Spark on Kubernetes and YARN, and Hive's metastore (our catalog is in memory);
RocksDB for other machines than Linux's.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

GONE = (
    *(f"{name}/**/tests" for name in ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib")),
    "onnx/backend/test",
    "feast/ui",
    "pyarrow/include",
    "pyarrow/*flight*",
    "onnxruntime/transformers",
    "onnxruntime/tools",
    "onnxruntime/quantization",
    "onnxruntime/capi/libonnxruntime.so.*",
    "pyspark/jars/kubernetes-*",
    "pyspark/jars/spark-kubernetes_*",
    "pyspark/jars/spark-yarn_*",
    "pyspark/jars/*hive*",
    "pyspark/jars/datanucleus-*",
    "pyspark/jars/derby*",
)
SOURCES = {".pyi", ".pyx", ".pxd", ".pxi", ".h", ".hpp", ".a", ".c", ".cc", ".cpp"}
AWS = ("s3", "sts", "sso", "sso-oidc", "signin")
ROCKSDB = ("librocksdbjni-linux64.so", "librocksdbjni-linux-aarch64.so")


def trim(site: Path) -> None:
    """Removes it; what is not there needs no removing."""
    for pattern in GONE:
        for path in list(site.glob(pattern)):
            _remove(path)
    for path in site.rglob("*"):
        if path.suffix in SOURCES and path.is_file():
            path.unlink()
    for path in (site / "babel" / "locale-data").glob("*.dat"):
        if path.stem != "root" and path.stem.partition("_")[0] != "en":
            path.unlink()
    for path in (site / "botocore" / "data").glob("*/"):
        if path.is_dir() and path.name not in AWS:
            _remove(path)
    for jar in site.glob("pyspark/jars/rocksdbjni-*.jar"):
        _only_linux(jar)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _only_linux(jar: Path) -> None:
    smaller = jar.with_suffix(".smaller")
    with zipfile.ZipFile(jar) as whole, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as kept:
        for entry in whole.infolist():
            if not entry.filename.startswith("librocksdbjni-") or entry.filename in ROCKSDB:
                kept.writestr(entry, whole.read(entry))
    smaller.replace(jar)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        trim(Path(given))
