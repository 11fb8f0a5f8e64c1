from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from plumb import main as cli

PLUMB = Path(sys.prefix) / "bin" / "plumb"


def plumb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PLUMB, *arguments], capture_output=True, text=True, timeout=60, check=False)


def commands() -> list[tuple[str, typer.core.TyperCommand]]:
    group = typer.main.get_command(cli.app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        found += [(f"{name} {inner}", item) for inner, item in below.items()] or [(name, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_says_what_it_does_with_an_example(name: str, command: typer.core.TyperCommand) -> None:
    assert f"plumb {name}" in (command.help or "").partition("Example:")[2]


def test_help_imports_nothing_heavy(home: Path) -> None:
    script = "import sys; from plumb import main; print(sorted({m.split('.')[0] for m in sys.modules}))"
    told = subprocess.run([PLUMB.with_name("python"), "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("pyspark", "pandas", "numpy", "feast", "mlflow", "dlt", "sqlalchemy", "pydantic", "redis"):
        assert f"'{heavy}'" not in told


def test_sigterm_lets_a_command_clean_up(home: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from plumb import main; from plumb.demo import demo\n"
        f"def work(**_):\n    try:\n        print('at work', flush=True); time.sleep(60)\n"
        f"    finally:\n        Path({str(tmp_path / 'cleaned')!r}).touch()\n"
        "demo.demo = work\n"
        "sys.argv = ['plumb', 'demo']; main.main()"
    )
    python = PLUMB.with_name("python")
    with subprocess.Popen([python, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None and command.stdout.readline() == "at work\n"
        command.terminate()
    assert command.returncode == 143
    assert (tmp_path / "cleaned").exists()


def test_exit_codes_are_documented_and_kept(home: Path) -> None:
    assert "3 a gate failed" in " ".join(plumb("--help").stdout.split())
    assert plumb("materialize").returncode == 1
    unknown = plumb("ingest", "--as-of", "tomorrow")
    assert unknown.returncode == 2


def test_an_error_is_a_sentence_not_a_traceback(home: Path) -> None:
    told = plumb("ingest", "--as-of", "1998-06-30")
    assert told.returncode == 4
    assert "plumb: there is no shop database at" in told.stderr
    assert "`plumb shop load`" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PLUMBLINE_NOPE", "1", "unknown setting PLUMBLINE_NOPE"),
        ("PLUMBLINE_NOW", "noon", "PLUMBLINE_NOW: "),
        ("PLUMBLINE_SHOP_URL", "orders", "PLUMBLINE_SHOP_URL: expected a SQLAlchemy URL"),
        ("PLUMBLINE_SHOP_URL", "oracle://scott:tiger@db/shop", "there is no driver for oracle"),
    ],
)
def test_bad_settings_have_their_exit_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    told = plumb("ingest", "--as-of", "1998-06-30")
    assert told.returncode == 2
    assert expected in told.stderr
    assert "Traceback" not in told.stderr and "tiger" not in told.stderr


def test_json_is_one_object_on_standard_output(home: Path) -> None:
    assert json.loads(plumb("settings", "--json").stdout)["PLUMBLINE_HOME"] == str(home)
    assert json.loads(plumb("releases", "list", "--json").stdout) == []
