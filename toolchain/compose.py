"""The compose stack: `make secrets`, `make up-compose`, `make down-compose`, `make logs`. docs/compose.md tells more.

`.env` holds every password of the stack. It is written once, for its owner alone; a name that it lacks, because the
stack grew, is added. `make rotate` (toolchain/rotation.py) changes them on the running stack.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import secrets
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.settings import ROOT, settings
from toolchain import images
from toolchain.binaries import BinariesError
from toolchain.images import ImageError

ENV = ROOT / ".env"
FILES = ("docker-compose.yml", "compose.local.yml")
KEYS = ("SIGNING_KEY", "VERIFY_KEY")
GENERATION, FERNET = "GENERATION", "AIRFLOW_FERNET_KEY"
STAYING = (FERNET, "POSTGRES_PASSWORD", "S3_ROOT_SECRET", "REDIS_ADMIN_PASSWORD")
"""What a rotation leaves as it is: the key of what Airflow keeps encrypted, and the three administrators, whose servers
would start again. No service has them, only what sets the services' keys."""

FOLDERS = {"backup": "TO", "restore": "FROM"}
PROFILES = ("watch", "events", "workers")
KEEPERS = ("postgres-roles", "s3-keys", "redis-users")
"""Services that give every other one its key, and end."""

HEAD = "# Passwords of the compose stack, by `make secrets`."
LINE = re.compile(r"""\s*(?P<name>[A-Z0-9_]+)=(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"#]*))\s*(?:#.*)?""")
END = "-----END PUBLIC KEY-----\\n"
"""How a public key ends in .env, which has each in one line."""

UNFINISHED = settings().home / "restoring"
"""There while a backup is being laid into the stack: what is in it then is a part."""

ONCE = ("volumes", *KEEPERS, "shop", "online", "airflow-migrate")
"""Services that do something and end."""


class ComposeError(Exception):
    """A call of Compose failed."""


def names() -> list[str]:
    """What .env has to hold: every variable that docker-compose.yml cannot do without."""
    return sorted(set(re.findall(r"\$\{([A-Z0-9_]+):\?", (ROOT / FILES[0]).read_text())))


def write_secrets(path: Path = ENV, rotate: bool = False) -> list[str]:
    """Writes what lacks in the file, or with `rotate` everything anew but what is STAYING; the names that were written.

    Models that the key before signed stay trusted until `retire_signing_key`.
    """
    known = read_secrets(path)
    new = {name for name in names() if name not in known or (rotate and name not in STAYING)}
    if new & set(KEYS):  # never one half of a pair
        new |= set(KEYS)
    before = known.get(KEYS[1], "")
    keys = dict(zip(KEYS, _signing_keys(), strict=True)) if KEYS[0] in new else {}
    for name in new:
        known[name] = keys.get(name) or _secret(name)
    if keys:
        known[KEYS[1]] += before
    if new:
        _write(path, known)
    else:
        path.chmod(0o600)
    return sorted(new)


def trust(path: Path, keys: str) -> None:
    """Models that these public keys signed are trusted too, from now on until the next rotation."""
    known = read_secrets(path)
    lacking = [key + END for key in keys.split(END) if key and key + END not in known[KEYS[1]]]
    _write(path, {**known, KEYS[1]: known[KEYS[1]] + "".join(lacking)})


def retire_signing_key(path: Path = ENV) -> None:
    """From now on only what the newest key signed is trusted."""
    known = read_secrets(path)
    newest, end, _ = known[KEYS[1]].partition(END)
    _write(path, {**known, KEYS[1]: newest + end})


def read_secrets(path: Path = ENV) -> dict[str, str]:
    """Name → value of what the file holds; empty when there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = (LINE.fullmatch(line) for line in lines)
    return {told["name"]: told["quoted"] or told["bare"] or "" for told in found if told}


def _write(path: Path, known: dict[str, str]) -> None:
    """The file anew, with every line in it that is somebody else's."""
    before = path.read_text().splitlines() if path.exists() else []
    ours = [f'{name}="{known[name]}"' for name in names()]
    theirs = [
        line for line in before if line != HEAD and not ((told := LINE.fullmatch(line)) and told["name"] in names())
    ]
    files.write_whole(path, "\n".join([HEAD, *ours, *theirs]) + "\n", 0o600)


def _secret(name: str) -> str:
    if name == GENERATION:  # a part of the names of keys, roles and users
        return secrets.token_hex(3)
    return base64.urlsafe_b64encode(os.urandom(32)).decode() if name == FERNET else secrets.token_hex(24)


def _signing_keys() -> tuple[str, str]:
    """A new private key and its public half, as PEM in one line."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return tuple(pem.decode().replace("\n", "\\n") for pem in (private, public))  # type: ignore[return-value]


def program() -> list[str]:
    """Compose v2: Docker's plugin, `docker-compose` on PATH, else compiled of its Go module (4 minutes, once)."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            told = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if told.returncode == 0 and told.stdout.lstrip("v").startswith(("2.", "3.", "4.", "5.")):
                return command
    return [str(images.go_program("docker-compose", images.COMPOSE, "cmd"))]


def compose(*arguments: str, local: bool, profiles: tuple[str, ...] = PROFILES) -> list[str]:
    """The command line of one call on the stack."""
    chosen = FILES if local else FILES[:1]
    given = [part for name in chosen for part in ("-f", str(ROOT / name))]
    return [*program(), *given, *(part for name in profiles for part in ("--profile", name)), *arguments]


def called(*arguments: str, local: bool) -> str:
    """What one call of Compose prints. Raises ComposeError with the end of what it said."""
    done = subprocess.run(compose(*arguments, local=local), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ComposeError(f"`compose {' '.join(arguments[:4])} …` ended with {done.returncode}: {done.stderr[-1500:]}")
    return done.stdout


def picture() -> str:
    """The stack as a Mermaid graph: a box a section of the file, an arrow from each service to what it waits for."""
    import yaml

    text = (ROOT / FILES[0]).read_text()
    waits = {name: list(told.get("depends_on", {})) for name, told in yaml.safe_load(text)["services"].items()}
    lines, section = ["graph LR"], ""
    for line in text.splitlines():
        if title := re.match(r"  # --- (.+?) -+$", line):
            lines += ["  end"] if section else []
            section = title[1]
            lines.append(f'  subgraph "{section}"')
        elif (name := re.match(r"  ([a-z0-9-]+):", line)) and section and name[1] in waits:
            lines.append(f"    {name[1]}" + (f"[[{name[1]}]]" if name[1] in ONCE else f"[{name[1]}]"))
        elif line.startswith("volumes:"):
            break
    lines.append("  end")
    lines += [f"  {name} --> {other}" for name, others in waits.items() for other in others if other not in ONCE]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Exit code 1 with a sentence where there is no engine; else Compose's own."""
    parser = argparse.ArgumentParser(
        prog="compose", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=("secrets", "up", "down", "logs", "rotate", "backup", "restore", "run", "picture"),
        help="run: any of Compose's",
    )
    parser.add_argument("--folder", type=Path, help="backup, restore: the folder of the backup")
    parser.add_argument("--local", action="store_true", help="with compose.local.yml: nothing is pulled")
    parser.add_argument("--profile", action="append", default=[], choices=PROFILES, help="also these services")
    parser.add_argument("--volumes", action="store_true", help="down: everything that the stack keeps goes too")
    given = parser.parse_args(sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else None)
    rest = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if given.what == "picture":
        print(picture(), end="")
        return
    if given.what == "secrets":
        written = write_secrets()
        print(f"{ENV.name}: {'written: ' + ', '.join(written) if written else 'complete, nothing is changed'}")
        return
    try:
        images.require_engine()
        if not ENV.exists():
            sys.exit("compose: there is no .env: `make secrets` writes it")
        if given.what == "up" and UNFINISHED.exists():
            sys.exit("compose: a restore did not end: `make down-compose VOLUMES=1`, then the restore again")
        if given.what in ("rotate", "backup", "restore"):
            _changed(given, parser)
            return
        profiles = tuple(given.profile) if given.what == "up" else PROFILES
        arguments = {
            "up": ["up", "--detach", "--wait", "--wait-timeout", "900", "--remove-orphans"],
            "down": ["down", "--remove-orphans", *(["--volumes"] if given.volumes else [])],
            "logs": ["logs", "--follow", "--tail", "100"],
            "run": [],
        }[given.what]
        command = compose(*arguments, *rest, local=given.local, profiles=profiles)
    except (ImageError, BinariesError, PlumblineError, ComposeError) as error:
        sys.exit(f"compose: {error}")
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if given.what == "down" and given.volumes and not code:
        UNFINISHED.unlink(missing_ok=True)
    sys.exit(code)


def _changed(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """One rotation, backup or restore at a time."""
    from toolchain import backup, rotation

    if given.what != "rotate" and given.folder is None:
        parser.error(f"{given.what} needs a folder: `make {given.what}-compose {FOLDERS[given.what]}=backups/monday`")
    with files.locked(ENV.with_name(".env.lock"), wait=False, held="a rotation, backup or restore is under way"):
        if given.what == "rotate":
            rotation.rotate(partial(called, local=given.local), ENV)
        elif given.what == "backup":
            backup.backup(compose(local=given.local, profiles=()), given.folder.resolve(), ENV)
        else:
            command = compose(local=given.local, profiles=tuple(given.profile))
            backup.restore(command, given.folder.resolve(), ENV)


if __name__ == "__main__":
    main()
