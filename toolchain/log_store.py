"""Compiles our Delta log store for S3 (java/plumbline/PutIfAbsentLogStore.java) into the cache, with any Java 17.

The compiler is Eclipse's, a jar of requirements/compiler-jars.txt: it needs no JDK, only the Java that Spark runs on.
`make setup` calls it; a jar of the same source is left alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from plumbline import java, s3
from plumbline.errors import PlumblineError
from plumbline.lake import spark
from plumbline.settings import settings

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of each file in the jar: the same source gives the same bytes."""


class CompileError(PlumblineError):
    """The log store does not compile, or its compiler is not there."""


def build() -> Path:
    """The log store's jar, compiled if it is not there. Raises CompileError."""
    jar = s3.log_store_jar()
    if jar.exists():
        return jar
    jar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jar.parent) as scratch:
        classes = Path(scratch) / "classes"
        _compile(classes)
        packed = Path(scratch) / jar.name
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(classes.rglob("*.class")):
                archive.writestr(zipfile.ZipInfo(str(path.relative_to(classes)), EPOCH), path.read_bytes())
        os.replace(packed, jar)
    return jar


def _compile(classes: Path) -> None:
    folder = settings().cache / "compiler-jars"
    compiler = next(iter(sorted(folder.glob("ecj-*.jar"))), None)
    if compiler is None:
        raise CompileError(f"no Java compiler in {folder}: run `make setup` again")
    hadoop = (spark.spark_home() / "jars").glob("hadoop-client-*.jar")
    classpath = ":".join(map(str, [*spark.jars(), *s3.jars_folder().glob("*.jar"), *hadoop]))
    done = subprocess.run(
        [
            str(java.java_home() / "bin" / "java"), "-jar", str(compiler), "-source", "17", "-target", "17",
            "-proc:none", "-nowarn", "-cp", classpath, "-d", str(classes), str(s3.LOG_STORE_SOURCE),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CompileError(f"{s3.LOG_STORE_SOURCE} does not compile:\n{(done.stdout + done.stderr).strip()[-2000:]}")


if __name__ == "__main__":
    try:
        build()
    except PlumblineError as error:
        sys.exit(f"log store: {error}")
