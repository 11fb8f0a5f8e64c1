"""Prometheus' and Alertmanager's binaries: those on PATH, or Debian's, fetched without root. Standard library only.

`python3 toolchain/binaries.py` fetches what lacks where there is apt: `apt-get download` checks the distribution's own
signature, and the packages that the tests ran with are pinned here by SHA-256. Elsewhere it says how to get them.
They lie in PLUMBLINE_CACHE/binaries; nothing is installed, nothing outside it is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),  # Debian's name, and its makers'
    "amtool": ("amtool",),
}
PACKAGES = {"prometheus": (2, 42), "prometheus-alertmanager": (0, 25)}
"""Debian's packages, and the oldest version whose features are used."""

OLDEST = {**PACKAGES, "etcd-server": (3, 4)}

PINNED = {
    "prometheus_2.42.0+ds-5+deb12u1_amd64.deb": "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
    "prometheus-alertmanager_0.25.0-1+b4_amd64.deb": "4fb9aed15cfe8e0c32408e643ab32a1e41ee87d2cc26f18aeba928b1b0b98ae7",
    "etcd-server_3.4.23-4+b4_amd64.deb": "3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d",
}
"""What the tests ran with. Another version or machine has only apt's own check, and says so."""

SHARED = {
    "prometheus": (b"/usr/share/prometheus/web", b"monitoring/prometheus-web"),
    "prometheus-alertmanager": (b"/usr/share/prometheus/alertmanager", b"./monitoring/alertmanager-template"),
}
"""Where Debian's binaries look for pages and templates, compiled in, which takes root; and what stands in its place in
the copies that are fetched: as long, and relative to the folder that they run in, where `share` puts links."""

HOW = (
    "Prometheus 2.42 and Alertmanager 0.25, or newer, are not on PATH: `make binaries` fetches them where there is apt "
    "(no root); on macOS `brew install prometheus alertmanager`; elsewhere their makers' archives, unpacked on PATH"
)


class BinariesError(Exception):
    """The binaries cannot be had this way."""


def folder() -> Path:
    """Where fetched binaries lie."""
    return Path(os.environ.get("PLUMBLINE_CACHE") or ROOT / ".plumbline" / "cache").expanduser().absolute() / "binaries"


def find(name: str) -> Path | None:
    """A binary by its name in NAMES, None when it is neither on PATH nor fetched."""
    for known in NAMES[name]:
        if found := shutil.which(known) or shutil.which(known, path=str(folder())):
            return Path(found)
    return None


def share(home: Path) -> None:
    """Links the pages and templates of fetched binaries to where these look, when they run in `home`."""
    for name, (was, now) in SHARED.items():
        there, link = folder() / "share" / Path(was.decode()).name, home / now.decode()
        if there.is_dir() and not link.is_symlink() and shutil.which(name, path=str(folder())):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(there)


def missing() -> list[str]:
    """The names of those that are not there."""
    return [name for name in NAMES if find(name) is None]


def fetch() -> None:
    """Puts all of them into `folder()`. Raises BinariesError without apt, or when a package is not what it must be."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise BinariesError(HOW)
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent) as scratch:
        work = Path(scratch)
        work.chmod(0o755)  # apt's own user downloads into it when root asks
        unpacked = work / "unpacked"
        _unpack(work, list(PACKAGES), unpacked)
        made = unpacked / "usr" / "bin"
        (unpacked / "usr" / "share" / "prometheus").rename(made / "share")
        for name, (was, now) in SHARED.items():
            (made / name).write_bytes((made / name).read_bytes().replace(was, now))
        shutil.rmtree(folder(), ignore_errors=True)
        made.rename(folder())


def fetch_one(package: str, name: str, to: Path) -> None:
    """Puts the binary `name` of one Debian package of OLDEST into a folder. Raises BinariesError as `fetch` does."""
    if found := shutil.which(name):
        shutil.copy2(found, to / name)
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise BinariesError(f"{name} is not on PATH, and there is no apt to fetch Debian's {package}: install it")
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        work = Path(scratch)
        work.chmod(0o755)
        _unpack(work, [package], work / "unpacked")
        (work / "unpacked" / "usr" / "bin" / name).replace(to / name)


def _unpack(work: Path, names: list[str], to: Path) -> None:
    for package in _download(work, names):
        verify(package)
        _run(["dpkg", "-x", str(package), str(to)], work)


def _download(work: Path, names: list[str]) -> list[Path]:
    """The packages, by the lists that are there or else by lists of our own."""
    try:
        _run(["apt-get", "-qq", "download", *names], work)
    except BinariesError:
        for part in ("lists/partial", "cache/archives/partial"):
            (work / part).mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache"]
        _run(["apt-get", "-qq", *own, "update"], work)
        _run(["apt-get", "-qq", *own, "download", *names], work)
    return sorted(work.glob("*.deb"))


def verify(package: Path) -> None:
    """Raises BinariesError when the package is not what is pinned under its name, or is too old."""
    name, version = package.name.split("_")[:2]
    if package.name in PINNED:
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        if digest != PINNED[package.name]:
            raise BinariesError(f"{package.name}: expected sha256 {PINNED[package.name]}, found {digest}")
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.replace("%3a", ":").rpartition(":")[2])[:2])
    if numbers < OLDEST[name]:
        raise BinariesError(f"{package.name} is older than {'.'.join(map(str, OLDEST[name]))}. {HOW}")
    print(f"    {package.name}: not the package that the tests ran with; apt's signature check alone vouches for it")


def _run(command: list[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BinariesError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-400:]}. {HOW}")


def main() -> None:
    """Fetches what lacks. It ends well either way: the tests that need the binaries say what is missing."""
    if missing():
        print("  · fetching Prometheus and Alertmanager", flush=True)
        try:
            fetch()
        except BinariesError as error:
            print(f"  ! {error}")


if __name__ == "__main__":
    main()
