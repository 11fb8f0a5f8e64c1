"""Runs `plumb` with folders that Python must not open: `python sealed.py CODE FOLDER… -- COMMAND…`.

A rebuild may not look at what it is compared with. An audit hook, which nothing can remove from the process, refuses
each file, folder and SQLite database below FOLDER. It also ends the process unless `plumbline` comes from CODE. This
file runs beside the code of another commit, so it imports nothing of ours.
"""

from __future__ import annotations

import os
import runpy
import sys

OPENING = ("open", "os.listdir", "os.scandir", "sqlite3.connect")


def seal(folders: list[str]) -> None:
    """From here on opening anything below these folders raises PermissionError."""
    roots = tuple(os.path.realpath(folder) for folder in folders)

    def refuse(event: str, given: tuple[object, ...]) -> None:
        if event not in OPENING or not given or not isinstance(given[0], str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(given[0]))
        if any(path == root or path.startswith(root + os.sep) for root in roots):
            raise PermissionError(f"sealed while a model is rebuilt: {path}")

    sys.addaudithook(refuse)


def main() -> None:
    """See the module."""
    code, *rest = sys.argv[1:]
    at = rest.index("--")
    seal(rest[:at])
    sys.path[0] = code  # instead of this file's folder
    import plumbline

    if not os.path.realpath(str(plumbline.__file__)).startswith(os.path.realpath(code) + os.sep):
        sys.exit(f"sealed: plumbline is {plumbline.__file__}, expected it below {code}")
    sys.argv = ["plumb", *rest[at + 1 :]]
    runpy.run_module("plumb", run_name="__main__")


if __name__ == "__main__":
    main()
