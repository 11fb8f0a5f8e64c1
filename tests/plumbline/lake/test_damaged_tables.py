"""A table whose log or data files were damaged by somebody else is named, with the way on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from plumbline import causes
from plumbline.lake import tables as lake

TABLE = "raw.orders"
ROWS = pa.table({"order_id": [1, 2, 3]})


@pytest.fixture(autouse=True)
def _table(home: Path) -> None:
    for _ in range(3):
        write_deltalake(lake.uri(TABLE), ROWS, mode="append")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("read", [lake.version, lake.opened, lake.rows])
def test_a_damaged_checkpoint_is_named_and_the_commits_beside_it_are_the_way_back(read) -> None:  # type: ignore[no-untyped-def]
    DeltaTable(lake.uri(TABLE)).create_checkpoint()
    log = Path(lake.uri(TABLE)) / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    cut(checkpoint)
    with pytest.raises(lake.LakeError) as failure:
        read(TABLE)
    told = str(failure.value)
    assert told.startswith(f"{TABLE}: its newest version cannot be read at {lake.uri(TABLE)}: ")
    assert "take away the *.checkpoint.parquet files and _last_checkpoint" in told
    checkpoint.unlink()
    (log / "_last_checkpoint").unlink()
    assert (lake.version(TABLE), lake.rows(TABLE)) == (2, 9)


@pytest.mark.parametrize(("damage", "what"), [(Path.unlink, "is gone"), (cut, "is cut or no Parquet")])
def test_a_data_file_that_is_gone_or_cut_is_named(damage, what: str) -> None:  # type: ignore[no-untyped-def]
    part = sorted(Path(lake.uri(TABLE)).glob("*.parquet"))[0]
    damage(part)
    with pytest.raises(Exception) as failure:  # noqa: PT011 - whatever the library raises, a command's user is told:
        lake.open_table(TABLE).to_pyarrow_table()
    told = str(causes.explained(failure.value))
    assert part.name in told
    assert what in told
    assert "bring the file back from a copy of the lake" in told


def test_files_of_a_folder_are_read_without_a_callback_into_python() -> None:
    """Arrow's threads that call Python while a process ends abort it."""
    from pyarrow.fs import PyFileSystem

    dataset = lake.open_table(TABLE).to_pyarrow_dataset()
    assert not isinstance(dataset.filesystem, PyFileSystem)
    assert dataset.to_table().num_rows == lake.open_table(TABLE, 1).to_pyarrow_table().num_rows + 3 == 9
