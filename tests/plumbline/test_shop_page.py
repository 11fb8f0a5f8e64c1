"""A shop is data: its page and its contracts, chosen by one setting."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from plumb.demo import demo
from plumbline import shop
from plumbline.contracts import check
from plumbline.contracts import contract as contracts
from plumbline.errors import SettingsError
from plumbline.pipeline.stage import StageRun
from plumbline.settings import ROOT, settings
from plumbline.state import acceptances, releases
from plumbline.state.acceptances import AcceptanceError
from plumbline.state.candidates import Candidate
from products.churn import CHURN
from serving.client import DemoError
from training.churn import labels, model
from validation.churn import suites, thresholds

JOURNEY = ROOT / "shops" / "journey"


def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(folder))
    settings.cache_clear()


@pytest.fixture
def _journey(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(JOURNEY, monkeypatch)


def test_the_default_shop_is_the_first_one(home: Path) -> None:
    assert (shop.page().name, labels.horizon_days(), shop.page().first_day) == ("CDNOW", 90, date(1997, 1, 1))
    assert (model.Params().seed, model.Params().min_child_weight) == (1997, 100.0)
    assert model.monotone() == {"days_since_last_order": 1, "orders_total": -1, "orders_90d": -1}
    assert contracts.shop("orders").path == ROOT / "contracts" / "shop.orders.odcs.yaml"


@pytest.mark.usefixtures("_journey")
def test_one_setting_changes_label_model_calendar_and_ranges() -> None:
    assert labels.last_observable(date(2017, 12, 31)) == date(2017, 12, 1)
    assert (model.Params().seed, model.Params(seed=3).seed) == (2017, 3)
    assert model.monotone() == {"days_since_last_order": 1, "orders_90d": -1}
    orders = contracts.shop("orders")
    assert (orders.zone.key, date(2017, 12, 25) in orders.closed_days) == ("America/New_York", True)
    assert orders.file == "shops/journey/contracts/shop.orders.odcs.yaml"
    assert contracts.load("analytics.orders").file == "contracts/analytics.orders.odcs.yaml"


@pytest.mark.usefixtures("_journey")
def test_a_mart_keeps_the_ranges_and_the_calendar_of_its_shop() -> None:
    ranges = {
        (table, c.arguments["column"]): (c.arguments["min_value"], c.arguments["max_value"])
        for table in ("analytics.orders", "analytics.orders_history")
        for c in suites.promised(table, date(2017, 12, 31), 1)
        if c.expectation == "ExpectColumnValuesToBeBetween"
    }
    for table in ("analytics.orders", "analytics.orders_history"):
        assert ranges[table, "order_date"] == ("2017-01-01", "2017-12-31")
        assert ranges[table, "units"] == (0, 1_000_000)
        assert ranges[table, "total_cents"] == (0, 500_000)


@pytest.mark.usefixtures("_journey")
def test_a_shop_without_stated_means_is_judged_by_its_own_past() -> None:
    day = date(2017, 12, 31)
    checks = {
        (c.expectation, c.arguments["column"]): c.arguments
        for c in suites.orders(day, 10, suites.NEW_MIN_ORDERS, released_mean=2900.0)
        if "column" in c.arguments
    }
    new = checks["ExpectColumnMeanToBeBetween", suites.NEW_CENTS]
    assert (new["min_value"], new["max_value"]) == (966, 8700)
    assert ("ExpectColumnMeanToBeBetween", "total_cents") not in checks, "none of another shop's"
    assert not [c for c in suites.orders(day, 10, 100) if c.arguments.get("column") == suites.NEW_CENTS]


@pytest.mark.usefixtures("_journey")
def test_code_and_contracts_agree_for_the_second_shop_too() -> None:
    found = [said for name, look in check.CHECKS.items() if name != check.contract_docs.PATH for said in look(CHURN)]
    assert found == []


@pytest.mark.usefixtures("_journey")
def test_nothing_that_the_second_shop_reads_speaks_of_the_first() -> None:
    shared = [contracts.load(dataset).path for dataset in CHURN.contracted]
    shared += [*ROOT.glob("dbt/models/*/*.yml"), ROOT / CHURN.definitions, *JOURNEY.rglob("*.yaml")]
    shared += [ROOT / "observability" / "grafana" / "churn" / "business.py"]
    for path in shared:
        text = path.read_text().replace("Argo CD", "")
        assert not re.search(r"CDNOW|\bCDs?\b", text), path


def test_limits_beside_the_page_count_and_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert thresholds.place() == "validation/churn/thresholds.yaml"
    (tmp_path / "shop.yaml").write_text((JOURNEY / "shop.yaml").read_text())
    own = thresholds.FILE.read_text().replace("value: 0.6\n", "value: 0.4\n", 1)
    (tmp_path / "thresholds.yaml").write_text(own)
    serve(tmp_path, monkeypatch)
    assert thresholds.load().orders_volume.lowest_share.value == 0.4
    assert thresholds.place() == str(tmp_path / "thresholds.yaml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("horizon_days: 30", "horizon_days: 0"), "horizon_days: Input should be greater than or equal to 1"),
        (("seed: 2017", "sead: 2017"), "model.seed: Field required; model.sead: Extra inputs are not permitted"),
        (("name:", "name"), "not YAML"),
    ],
)
def test_a_page_that_is_not_as_it_must_be_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], told: str
) -> None:
    (tmp_path / "shop.yaml").write_text((JOURNEY / "shop.yaml").read_text().replace(*change))
    serve(tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match=told):
        shop.page()
    serve(tmp_path / "nowhere", monkeypatch)
    with pytest.raises(SettingsError, match=r"there is no .*nowhere/shop.yaml: name a folder with a shop's page"):
        shop.page()


def test_a_home_serves_one_shop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(ROOT / "shops" / "cdnow"))  # so that it is put back
    with pytest.raises(DemoError, match="there is no shop grocer: expected one of cdnow, journey"):
        demo.choose_shop("grocer")
    demo.choose_shop("journey")
    with pytest.raises(DemoError, match="The Complete Journey is loaded into Postgres: name an empty database in"):
        demo.demo()
    releases.publish(releases.Release(1, "churn", date(2017, 12, 1), None, {}, {}, "code", "lock", "test", "now"))
    with pytest.raises(DemoError, match="this home serves The Complete Journey: give cdnow a home of its own"):
        demo.choose_shop("cdnow")


def test_a_leakage_finding_that_is_honest_can_be_accepted_for_a_release(home: Path) -> None:
    day = date(1997, 1, 7)
    with pytest.raises(AcceptanceError, match="no release covers up to that day, so it has no dataset"):
        acceptances.accept(CHURN, "target_leakage", day, "honest", "a test")
    releases.publish(releases.Release(1, "churn", day, None, {}, {}, "code", "lock", "test", "now"))
    acceptances.accept(CHURN, "target_leakage", day, "where 5 % churn, regulars do not", "a test")
    found = acceptances.accepted("churn", "target_leakage", day)
    assert found is not None and found.why == "where 5 % churn, regulars do not"
    with pytest.raises(AcceptanceError, match="temporal_leakage cannot be accepted"):
        acceptances.accept(CHURN, "temporal_leakage", day, "honest", "a test")


def test_a_run_of_a_second_shop_learns_its_mean_from_the_release(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from plumbline.lake import tables as lake

    serve(JOURNEY, monkeypatch)
    write_deltalake(lake.uri("analytics.orders"), pa.table({"total_cents": pa.array([1000, 3000], pa.int64())}))
    base = releases.Release(1, "churn", date(2017, 12, 30), None, {"analytics.orders": 0}, {}, "c", "l", "t", "n")
    candidate = Candidate("churn-test", "churn", date(2017, 12, 31), 1, tables={}, stages={})
    assert suites._released_mean(StageRun(CHURN, "ge_check", date(2017, 12, 31), candidate, base)) == 2000.0
