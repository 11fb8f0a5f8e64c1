"""A Git server on loopback: one repository, by `git http-backend`; its first commit has this checkout's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from plumbline.servers.services import HOST
from plumbline.settings import ROOT

ADDRESS = "https://git.example.com/plumbline.git"
"""What an installer replaces (docs/deploy.md)."""

ENVIRONMENTS = "k8s/apps/environments.yaml"
PERSON = {
    "GIT_AUTHOR_NAME": "installer",
    "GIT_AUTHOR_EMAIL": "installer@example.com",
    "GIT_COMMITTER_NAME": "installer",
    "GIT_COMMITTER_EMAIL": "installer@example.com",
}


class Repository:
    """The branch main of a repository at `url`; `work` is a clone of it, in which a person edits.

    Its first commit has the files of this checkout that Git knows or would add, as they are now, with the repository's
    address replaced and no environment but dev.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the repository in an empty folder and serves it, until `stop`."""
        self.work, self._bare = folder / "work", folder / "served" / "plumbline.git"
        self._bare.mkdir(parents=True)
        self.work.mkdir()
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self._bare.parent))
        threading.Thread(target=self._server.serve_forever, name="git", daemon=True).start()
        self.url = f"http://{HOST}:{self._server.server_port}/{self._bare.name}"
        _git(self._bare, "init", "--quiet", "--bare", "--initial-branch=main")
        _git(self.work, "init", "--quiet", "--initial-branch=main")
        _git(self.work, "remote", "add", "origin", str(self._bare))
        for name in ("name", "email"):
            _git(self.work, "config", f"user.{name}", PERSON[f"GIT_AUTHOR_{name.upper()}"])
        for name in filter(None, _git(ROOT, "ls-files", "-zco", "--exclude-standard").split("\0")):
            if (ROOT / name).exists():  # one that is deleted and not yet committed so
                (self.work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.work / name, follow_symlinks=False)
        self.commit("as it is installed", self._installed())

    def commit(self, message: str, files: Mapping[str, str]) -> str:
        """Writes files (their text by their path in the repository), commits all changes and pushes; the commit."""
        for path, text in files.items():
            (self.work / path).write_text(text)
        _git(self.work, "add", "--all")
        _git(self.work, "commit", "--quiet", "--message", message)
        return self._push()

    def revert(self, commit: str) -> str:
        """Takes a commit back by another and pushes that; the new commit."""
        _git(self.work, "revert", "--no-edit", commit)
        return self._push()

    def merge(self, branch: str) -> str:
        """Merges a branch of the clone into main, pushes, and returns the new head."""
        _git(self.work, "merge", "--quiet", "--ff-only", branch)
        return self._push()

    def read(self, path: str) -> str:
        """The text of a file as it is now."""
        return (self.work / path).read_text()

    def stop(self) -> None:
        """Serves no more; the folder stays."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def head(self) -> str:
        """The newest commit."""
        return _git(self.work, "rev-parse", "HEAD").strip()

    def _push(self) -> str:
        _git(self.work, "push", "--quiet", "origin", "main")
        return self.head

    def _installed(self) -> dict[str, str]:
        paths = [path.relative_to(self.work).as_posix() for path in sorted((self.work / "k8s").rglob("*.yaml"))]
        changed = {path: text.replace(ADDRESS, self.url) for path in paths if ADDRESS in (text := self.read(path))}
        found = yaml.safe_load(self.read(ENVIRONMENTS))
        found["elements"] = [each for each in found["elements"] if each["environment"] == "dev"]
        return {**changed, ENVIRONMENTS: yaml.safe_dump(found)}


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """CGI for one program, Git's own server side of its smart protocol."""

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            told = {
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "REMOTE_ADDR": HOST,
            }
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            done = subprocess.run(
                ["git", "http-backend"], input=body, env={**os.environ, **told}, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], cwd=folder, env={**os.environ, **PERSON}, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
