"""One of the drills, whole: a split that forgets near duplicates. `make drill` runs all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from drills import code_faults, picture_faults
from drills.catalogue import ALL, DRILLS, PICTURES
from drills.drill import Drill
from drills.striking import PLUMB
from drills.table import FEWEST, PAGES
from plumbline.settings import ROOT

CHOSEN = ("near-duplicates",)
EDITS = {
    name: edit if isinstance(edit, tuple) else (edit,)
    for module in (code_faults, picture_faults)
    for name, edit in vars(module).items()
    if name.isupper() and isinstance(edit, tuple | code_faults.Edit)
}


def test_there_are_enough_faults_and_controls_between_them() -> None:
    faults = [drill for drill in DRILLS if drill.stopped_by]
    assert len(faults) >= FEWEST
    assert len({drill.name for drill in ALL}) == len(ALL)
    assert not DRILLS[0].stopped_by and not DRILLS[-1].stopped_by and not PICTURES[0].stopped_by
    assert any(not drill.stopped_by for drill in DRILLS[1:-1])


@pytest.mark.parametrize(("page", "drills"), PAGES.items(), ids=lambda value: getattr(value, "stem", ""))
def test_the_page_tells_of_every_drill_that_it_went_as_it_must(page: Path, drills: list[Drill]) -> None:
    rows = [line for line in page.read_text().splitlines() if line.startswith("| **")]
    assert [row.split("**")[1] for row in rows] == [drill.name for drill in drills]
    found = {row.split("**")[1]: [cell.strip() for cell in row.split("|")] for row in rows}
    assert {name: cells[3] for name, cells in found.items()} == {d.name: d.stopped_by or "nobody" for d in drills}
    assert {cells[-2] for cells in found.values()} == {"0"}, "lost"


@pytest.mark.parametrize("name", EDITS)
def test_a_change_of_the_code_still_has_its_place_in_the_tree(name: str, tmp_path: Path) -> None:
    for edit in EDITS[name]:
        changed = tmp_path / edit.file
        changed.parent.mkdir(parents=True, exist_ok=True)
        if not changed.exists():
            shutil.copyfile(ROOT / edit.file, changed)
        edit.apply(tmp_path)
        assert edit.new in changed.read_text()
        if changed.suffix == ".py":
            compile(changed.read_text(), edit.file, "exec")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("home")
def test_faults_are_caught_and_nothing_is_lost() -> None:
    done = subprocess.run([PLUMB, "drill", *CHOSEN], capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.count("as it must be") == len(CHOSEN)


def test_a_drill_that_does_not_exist_is_said() -> None:
    done = subprocess.run([PLUMB, "drill", "nonesuch"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no drill 'nonesuch'; there are clean-day, renamed-column" in done.stderr
