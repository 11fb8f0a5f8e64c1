"""The tutorial of one's own shop, word for word, against a Postgres: from a view to an answered prediction."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from plumbline.settings import ROOT
from tests.ingestion.conftest import postgres, postgres_shop
from tests.tree import copy
from tests.tree import environment as of_tree
from tests.tutorials import tutorial

__all__ = ["postgres", "postgres_shop"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_shop_of_ones_own_gets_from_views_to_an_answered_prediction(
    postgres_shop: sa.URL, spark_address: str, tmp_path: Path
) -> None:
    tree = copy(tmp_path / "tree")
    page = (ROOT / "docs" / "your-own.md").read_text().partition("## Data\n")[2].partition("## Servers\n")[0]
    environment = {**of_tree(tree, tree / ".plumbline" / "own"), "SPARK_REMOTE": spark_address}
    environment["PLUMBLINE_SHOP_URL"] = postgres_shop.render_as_string(hide_password=False)

    def sql(statements: str) -> None:
        """The page's views in place of the loader's."""
        with sa.create_engine(postgres_shop).begin() as connection:
            connection.execute(sa.text("DROP VIEW orders, customers, returns"))
            connection.execute(sa.text(statements))

    try:
        assert tutorial.run(page, tree, environment, sql) >= 6
    finally:
        subprocess.run(["plumb", "down"], cwd=tree, env=environment, check=True, timeout=120)
