"""Two processes that publish at the same moment: one wins each number, the other is told, and nothing is torn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from plumbline.settings import settings
from plumbline.state import releases

ROUNDS, RUNNERS = 25, 3
SCRIPT = """
import json, sys, time
from datetime import date
from pathlib import Path
from plumbline.state import releases
from plumbline.errors import Conflict
from plumbline.state.releases import Release

name, rounds, runners, meet = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
for number in range(1, rounds + 1):
    tables = {"raw.orders": number}
    made = Release(number, "toy", date(1998, 6, 30), number - 1 or None, tables, {}, "code", "lock", name, "now")
    (meet / f"{number}-{name}").touch()
    while len(list(meet.glob(f"{number}-*"))) < runners:
        time.sleep(0)
    try:
        releases.publish(made)
        print(json.dumps([number, "won"]))
    except Conflict as told:
        print(json.dumps([number, str(told)]))
"""


def test_of_runs_that_publish_at_once_one_wins_and_the_others_say_so(home: Path, tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    names = [f"run-{number}" for number in range(RUNNERS)]
    command = [sys.executable, "-c", SCRIPT]
    started = [
        subprocess.Popen([*command, name, str(ROUNDS), str(RUNNERS), meet], stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    told = {name: process.communicate(timeout=120)[0] for name, process in zip(names, started, strict=True)}
    assert [process.returncode for process in started] == [0] * RUNNERS
    said = {name: dict(map(json.loads, lines.splitlines())) for name, lines in told.items()}
    assert releases.numbers("toy") == list(range(1, ROUNDS + 1))
    for number in range(1, ROUNDS + 1):
        winners = [name for name in names if said[name][number] == "won"]
        assert winners == [releases.read("toy", number).run_id], "the file is the winner's, whole"
        for loser in set(names) - set(winners):
            assert (
                f"release {number} was published since this run pinned release {number - 1 or None}"
                in (said[loser][number])
            )
    assert [path.name for path in (settings().home / "releases" / "toy").iterdir() if path.name.startswith(".")] == []
