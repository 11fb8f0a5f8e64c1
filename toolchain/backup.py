"""A stack's Postgres and buckets in a folder, and back into an empty stack: `make backup-compose TO=…`, `make
restore-compose FROM=…`.

MLflow's tables first: what they name was in the bucket before. The shop's last: an order that landed is in it. So a
backup may be taken while everything runs; what is written meanwhile may be missing from it, whole. It holds no password
(keep `.env` elsewhere) but the public keys that its models are signed with, so that they are trusted where it is laid.
Kafka's volume is not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

from plumbline import clock, files
from plumbline.settings import ROOT
from toolchain import compose
from toolchain.compose import ComposeError

DATABASES = ("airflow", "mlflow", "marquez", "shop")
BUCKETS, TOLD = "buckets.tar", "backup.json"
DUMP = 'PGPASSWORD=$POSTGRES_PASSWORD exec pg_dump -h 127.0.0.1 -U postgres --format=custom "$1"'
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
COUNT = f'PGPASSWORD=$POSTGRES_PASSWORD exec psql -h 127.0.0.1 -U postgres -At -c "{TABLES}" "$1"'
RESTORE = 'PGPASSWORD=$POSTGRES_PASSWORD exec pg_restore -h 127.0.0.1 -U postgres --exit-on-error -d "$1"'


def backup(command: list[str], folder: Path, env: Path) -> None:
    """Fills an empty or new folder; `command` is Compose's, `env` the stack's secrets.

    Raises ComposeError where a part cannot be had.
    """
    begun = time.monotonic()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # customers are in it
    if any(folder.iterdir()):
        raise ComposeError(f"{folder} is not empty: a backup gets a folder of its own")
    for name in (*DATABASES[:-1], BUCKETS, DATABASES[-1]):
        if name == BUCKETS:
            _run([*command, *_archive("save")], out=folder / BUCKETS)
        else:
            _run([*command, "exec", "-T", "postgres", "sh", "-c", DUMP, "sh", name], out=folder / f"{name}.dump")
        _tell(name, begun)
    parts = sorted(path for path in folder.iterdir())
    told = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in parts}
    signers = compose.read_secrets(env)[compose.KEYS[1]]
    whole = {"taken_at": clock.wall().isoformat(), "files": told, "signers": signers}
    files.write_whole(folder / TOLD, files.dumps(whole), 0o600)
    _tell(f"done: {sum(path.stat().st_size for path in parts) / 1e6:.0f} MB in {folder}", begun)


def restore(command: list[str], folder: Path, env: Path) -> None:
    """Brings a backup into a stack whose volumes are new, then starts all of it.

    The keys that signed the backup's models are trusted until the next rotation, which signs them anew.

    Raises ComposeError when the folder is not what `backup` left, before anything is started, and when the stack is
    not empty.
    """
    begun = time.monotonic()
    try:
        whole = json.loads((folder / TOLD).read_text())
        told, signers = whole["files"], whole["signers"]
    except (OSError, ValueError, KeyError):
        raise ComposeError(f"{folder} holds no {TOLD}: expected a folder that `make backup-compose` filled") from None
    for name in (*(f"{name}.dump" for name in DATABASES), BUCKETS):
        path = folder / name
        if not path.exists() or _sha256(path) != told.get(name, {}).get("sha256"):
            raise ComposeError(f"{path} is not the file that the backup wrote: nothing was started")
    running = subprocess.run([*command, "ps", "--services"], capture_output=True, text=True, check=False).stdout
    if running.split():
        raise ComposeError("the stack runs: `make down-compose VOLUMES=1` makes it an empty one")
    compose.trust(env, signers)
    files.write_whole(compose.UNFINISHED, f"{folder}\n")
    _run([*command, "up", "--detach", "--wait", "postgres", "s3"])
    for keeper in ("postgres-roles", "s3-keys"):
        _run([*command, "run", "--rm", "--no-deps", keeper])
    for name in DATABASES:
        count = _run([*command, "exec", "-T", "postgres", "sh", "-c", COUNT, "sh", name]).strip()
        if count != "0":
            raise ComposeError(f"database {name} has {count} tables: a backup goes into an empty stack only")
    for name in DATABASES:
        _run([*command, "exec", "-T", "postgres", "sh", "-c", RESTORE, "sh", name], given=folder / f"{name}.dump")
        _tell(f"database {name}", begun)
    _run([*command, *_archive("load")], given=folder / BUCKETS)
    _tell("buckets", begun)
    compose.UNFINISHED.unlink()
    _run([*command, "up", "--detach", "--wait", "--wait-timeout", "900"])
    _tell("everything is up", begun)


def _archive(what: str) -> list[str]:
    return ["run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "s3-keys", "/stack/s3_archive.py", what]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: list[str], out: Path | None = None, given: Path | None = None) -> str:
    """Runs it, between files where they are given; what it prints. Raises ComposeError with the end of what it said."""
    with (
        os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") if out else nullcontext() as target,
        (given or Path("/dev/null")).open("rb") as source,
    ):
        done = subprocess.run(
            command, cwd=ROOT, stdin=source, stdout=target or subprocess.PIPE, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    if done.returncode:
        if out:
            out.unlink()
        told = done.stderr.decode(errors="replace")[-1500:]
        raise ComposeError(f"`… {' '.join(command[-3:])}` ended with {done.returncode}: {told}")
    return (done.stdout or b"").decode()


def _tell(what: str, begun: float) -> None:
    print(f"  · {time.monotonic() - begun:4.0f} s  {what}", flush=True)
