"""A preview of real models on a real release: what changed is shown, and nothing of the home is touched."""

from __future__ import annotations

import hashlib
import shutil
from datetime import date
from pathlib import Path

import pytest

from feature_repo.churn.jobs import customers as job
from ingestion.churn import cdnow as shop
from plumb.reports.preview import page as preview_page
from plumb.reports.preview import preview as module
from plumb.reports.preview.preview import PreviewError, changed, preview
from tests.e2e.test_whole_path import plumb
from transform import build as transform

DAY = "1997-01-19"
UNTOUCHED = ("lake", "ledger", "releases", "runs", "evidence", "feast", "mlflow", "training", "dbt", "shop.sqlite")


def contents(home: Path) -> dict[str, str]:
    """Every file of the home that a preview has no business with, by its digest."""
    paths = [path for name in UNTOUCHED for path in [home / name, *(home / name).rglob("*")] if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
def test_a_preview_shows_what_changed_and_touches_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.load(until=date(1997, 1, 19))
    for stage in ("ingest", "dbt_run", "ge_check", "features", "activity", "distribution_check", "release"):
        done = plumb(stage, "--as-of", DAY)
        assert done.returncode == 0, done.stderr
    project, sql = tmp_path / "tree" / "dbt", tmp_path / "tree" / "feature_repo" / "churn" / "jobs" / "customers.sql"
    shutil.copytree(transform.PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    sql.parent.mkdir(parents=True)
    shutil.copyfile(job.SQL, sql)
    monkeypatch.setattr(transform, "PROJECT", project)
    monkeypatch.setattr(job, "SQL", sql)
    orders, history = (project / "models" / "marts" / f"{name}.sql" for name in ("orders", "orders_history"))
    before = contents(home)

    assert changed() == dict.fromkeys(module.TABLES, False)
    assert preview() == []
    assert "plumb preview features.customers" in module.nothing_changed()
    with pytest.raises(PreviewError, match="did you mean analytics.orders"):
        preview("analytics.order")
    with pytest.raises(PreviewError, match="over 0 and up to 1"):
        preview("analytics.orders", share=2)

    edit(
        orders,
        "    total_cents,\n",
        "    if(total_cents > 9000, -1, total_cents) as total_cents,\n    units / 2 as half,\n",
    )
    edit(
        sql,
        "    CAST(first_order_day",
        "    CAST(orders_7d / orders_total AS FLOAT) AS share_7d,\n    CAST(first_order_day",
    )
    edit(history, "    total_cents,\n", "    if(total_cents > 9000, -1, total_cents) as total_cents,\n")
    others = ("customers", "customers_history", "returns", "returns_history")
    same = dict.fromkeys((f"analytics.{name}" for name in others), False)
    edited = dict.fromkeys(("analytics.orders", "analytics.orders_history", "features.customers"), True)
    assert changed() == {**same, **edited}
    mart, versions, features = preview(share=0.5)
    assert (mart.table, features.table) == ("analytics.orders", "features.customers")
    assert mart.diff is not None and features.diff is not None
    dear = mart.diff["rows"]["changed"]
    assert 0 < dear < mart.diff["rows"]["before"] == mart.diff["rows"]["after"]
    assert list(mart.diff["columns"]["added"]) == ["half"]
    failed = [test for test in mart.tests if test["status"] != "pass"]
    assert [(test["rows"], test["file"]) for test in failed] == [(dear, "models/marts/orders.yml")]
    assert mart.failed
    assert (mart.limits, features.limits) == (module.OLD_ORDERS, "")
    assert module.OLD_ORDERS in Path(mart.page).read_text()
    preview_page.show(mart)
    assert module.OLD_ORDERS in capsys.readouterr().out
    assert any("ge_check" in reader for reader in mart.readers)
    assert any("feature job" in reader for reader in versions.readers)
    assert list(features.diff["columns"]["added"]) == ["share_7d"]
    assert features.diff["each"]["spend_cents_total"]["changed"] > 0, "features see the model as it would be"
    assert features.diff["each"]["orders_total"]["changed"] == 0
    assert "needs 90 days of orders" in features.no_metrics, "19 days of orders train nothing, and it says so"
    page = Path(features.page).read_text()
    assert "share_7d" in page and "<svg" in page

    edit(orders, "units / 2 as half", "no_such_column as half")
    edit(sql, "CAST(orders_7d / orders_total", "CAST(orders_8d / orders_total")
    mart, _, features = preview()
    assert "models/marts/orders.sql" in mart.errors[0] and "no_such_column" in mart.errors[0]
    line = next(n for n, text in enumerate(sql.read_text().splitlines(), 1) if "orders_8d" in text)
    assert f"feature_repo/churn/jobs/customers.sql:{line}: " in features.errors[0] and "orders_8d" in features.errors[0]
    assert contents(home) == before
