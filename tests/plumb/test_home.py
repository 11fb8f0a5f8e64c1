"""What an older home has at a folder's root is churn's; what a product has in a folder of its own stays there."""

from __future__ import annotations

from pathlib import Path

import pytest

from plumb import home as upgrading


@pytest.mark.parametrize("folder", upgrading.MOVED)
def test_only_what_is_no_products_moves_to_churn(home: Path, folder: str) -> None:
    for name in ("3", "images", "churn"):
        (home / folder / name).mkdir(parents=True)
        (home / folder / name / "kept").write_text(name)
    for _ in range(2):
        upgrading.upgrade()
        assert {path.name for path in (home / folder).iterdir()} == {"images", "churn"}
        assert (home / folder / "images" / "kept").read_text() == "images"
        assert (home / folder / "churn" / "3" / "kept").read_text() == "3"
