"""The contracts as they are, and each way in which one can be malformed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from plumbline.contracts import contract as contracts
from plumbline.contracts import odcs
from plumbline.contracts.contract import ContractError
from plumbline.contracts.limits import Limits
from plumbline.settings import settings
from products.churn import CHURN

Document = dict[str, Any]


@pytest.fixture
def folder(own_contracts: Path) -> Path:
    return own_contracts


def spoil(folder: Path, change: Callable[[Document], object], dataset: str = "shop.orders") -> None:
    path = folder / f"{dataset}.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def test_every_dataset_has_a_contract_with_owner_channel_and_service_levels(home: Path) -> None:
    for dataset in CHURN.contracted:
        contract = contracts.load(dataset)
        assert contract.owner and contract.channel.startswith("#") and contract.key
        levels = {level.property: level.value for level in contract.levels}
        assert (levels["completeness"], levels["schemaNotice"]) == (99.9, 7)
    features = contracts.load("features.customers")
    fresh = next(level for level in features.levels if level.property == "timeOfAvailability")
    assert (fresh.value, fresh.objective) == ("00:05", 99.5)
    assert features.key == ("customer_id", "snapshot_date")
    orders = contracts.shop("orders")
    assert {name for name, column in orders.columns.items() if column.required} == set(orders.columns)
    assert (orders.columns["total_cents"].minimum, orders.columns["total_cents"].maximum) == (0, 10_000_000)


def columns(document: Document) -> list[Document]:
    found: list[Document] = document["schema"][0]["properties"]
    return found


def limit(document: Document, column: int, **options: object) -> None:
    columns(document)[column]["logicalTypeOptions"] = options


def level(document: Document, name: str, value: object, unit: str) -> None:
    document["slaProperties"].append({"property": name, "value": value, "unit": unit})


def custom(document: Document, name: str, value: object) -> None:
    document.setdefault("customProperties", []).append({"property": name, "value": value})


def only(document: Document, **said: object) -> None:
    document["customProperties"] = [{"property": name, "value": value} for name, value in said.items()]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.pop("apiVersion"), "'apiVersion' is a required property"),
        (lambda d: d.update(ownr="x"), "Additional properties are not allowed"),
        (lambda d: columns(d)[0].update(requird=True), r"schema\[0\].properties\[0\]: Unevaluated properties"),
        (lambda d: d.update(id="orders"), "id: expected shop.orders, the file's name; found orders"),
        (lambda d: columns(d)[0].update(required=False), "order_id: a key's columns are required: true"),
        (lambda d: columns(d)[5].update(required=False), "recorded_at says when a row was recorded: it is required"),
        (
            lambda d: columns(d)[3].update(
                physicalType="double", logicalType="number", logicalTypeOptions={"minimum": float("nan")}
            ),
            "minimum: expected a number that a double can be, found nan",
        ),
        (lambda d: d.update(version="1.\u00b2.0"), "version: expected numbers as in 1.0.0"),
        (lambda d: d.update(version="one"), "version: expected numbers as in 1.0.0, found one"),
        (lambda d: d.pop("team"), "team: expected a name and a member of role owner"),
        (lambda d: d.pop("support"), "support: expected a channel"),
        (lambda d: d["slaProperties"].pop(), "slaProperties: expected schemaNotice"),
        (lambda d: columns(d)[0].pop("primaryKey"), "no column is primaryKey"),
        (lambda d: columns(d)[1].update(name="order_id"), "expected columns, each once"),
        (lambda d: columns(d)[1].update(name="Customer"), "expected lower case, digits and _, found 'Customer'"),
        (lambda d: columns(d)[3].update(physicalType="text"), r"\(units\): expected a physicalType with its logical"),
        (lambda d: columns(d)[3].pop("description"), r"\(units\): expected a description"),
        (lambda d: columns(d)[3]["logicalTypeOptions"].update(multipleOf=2), "nothing here would check multipleOf"),
        (
            lambda d: columns(d)[2]["quality"][0].update(implementation={"latest": "now"}),
            r"quality \(order_date\): expected engine plumbline",
        ),
        (lambda d: columns(d)[1].update(unique=True), r"properties \(customer_id\): unique: nothing here would check"),
        (lambda d: level(d, "latency", 50, "ms"), r"\(latency\): nothing here reads it of shop.orders; read are comp"),
        (lambda d: level(d, "retention", 3, "y"), r"\(retention\): nothing here reads it of shop.orders"),
        (lambda d: level(d, "completeness", 90, "percent"), r"\(completeness\): stated twice"),
        (lambda d: d["slaProperties"][1].update(value=14), "expected 7 d, the notice that is kept; found 14 d"),
        (
            lambda d: d["slaProperties"][0].update(customProperties=[{"property": "objective", "value": 99}]),
            r"slaProperties\[0\]: Additional properties are not allowed \('customProperties'",
        ),
        (lambda d: limit(d, 2, minimum="long ago"), 'minimum: expected a date as in "1997-01-31", found .long ago'),
        (lambda d: limit(d, 3, minimum=2.5), "minimum: expected a number that a bigint can be, found 2.5"),
        (lambda d: limit(d, 3, minimum=9, maximum=1), "minimum 9 is above maximum 1: no value would do"),
        (lambda d: limit(d, 3, maximum=2**63), "a bigint holds -9,223,372,036,854,775,808 to"),
        (lambda d: columns(d)[3].update(name="known_at"), "known_at: landing adds columns of that name to every row"),
        (lambda d: custom(d, "timeZone", "Mars/Olympus"), "timeZone: expected a time zone as in Asia/Tokyo"),
        (lambda d: custom(d, "closedDays", ["12-32"]), r'closedDays\[0\]: expected "12-25" \(each year\)'),
        (lambda d: only(d, dailyRows=0), r"dailyRows: expected how many rows each open day has at least, as in 1"),
        (lambda d: only(d, dailyRows="many"), r"dailyRows: expected how many rows .*; found \['many'\]"),
        (
            lambda d: (columns(d).pop(), only(d, recordedAt="none", dailyRows=1)),
            r"dailyRows: no column says on which day a row was recorded \(recordedAt: none\)",
        ),
        (lambda d: custom(d, "leftOut", ["units"]), "leftOut: units: the contract promises it, so it lands"),
        (lambda d: custom(d, "timezone", "UTC"), "customProperties.timezone: nothing here reads it of shop.orders"),
        (
            lambda d: custom(d, "objectives", [{"level": "latency", "percent": 99}]),
            "objectives: latency: slaProperties state no such level",
        ),
    ],
)
def test_a_malformed_contract_is_named_with_the_place(
    folder: Path, change: Callable[[Document], object], told: str
) -> None:
    spoil(folder, lambda document: change(document))
    with pytest.raises(ContractError, match=told) as error:
        contracts.load("shop.orders")
    assert str(folder / "shop.orders.odcs.yaml") in str(error.value)


def test_a_contract_that_is_not_there_or_not_yaml_is_named(folder: Path) -> None:
    with pytest.raises(ContractError, match="no contract of shop.refunds at .*; there are analytics.customers, "):
        contracts.load("shop.refunds")
    (folder / "shop.orders.odcs.yaml").write_text("a: [")
    with pytest.raises(ContractError, match=r"shop.orders.odcs.yaml: not YAML in UTF-8: "):
        contracts.load("shop.orders")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("version: 1.0.0\nversion: 2.0.0\n", "version is stated twice"),
        ("name: caf\u00e9\n", "not YAML in UTF-8: 'utf-8' codec can't decode byte 0xe9"),
        ("[" * 5000, "too many brackets within each other"),
    ],
)
def test_a_file_that_could_be_read_in_two_ways_or_in_none_is_named(folder: Path, content: str, told: str) -> None:
    (folder / "shop.orders.odcs.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ContractError, match=told):
        contracts.shop("orders")


def announce(folder: Path, **changed: str) -> None:
    rename = {"from": "total_cents", "to": "amount_cents", "announced": "1998-06-20", "effective": "1998-07-05"}
    said = {"property": "announcedRenames", "value": [rename | changed]}
    spoil(folder, lambda document: document.update(customProperties=[said]))


def test_both_names_are_accepted_in_a_notice_and_the_new_one_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(folder)
    accepted = {}
    for day in ("1998-06-19", "1998-06-20", "1998-07-04", "1998-07-05"):
        monkeypatch.setenv("PLUMBLINE_NOW", f"{day}T23:00:00Z")
        settings.cache_clear()
        accepted[day] = contracts.shop("orders").accepted("total_cents")
    both = ("amount_cents", "total_cents")
    assert list(accepted.values()) == [("total_cents",), both, both, ("amount_cents",)]
    assert contracts.shop("orders").accepted("units") == ("units",)


def test_a_notice_of_less_than_seven_days_does_not_stand(folder: Path) -> None:
    announce(folder, announced="1998-06-28", effective="1998-07-04")
    assert contracts.shop("orders").standing() == []
    announce(folder, announced="1998-06-27", effective="1998-07-04")
    assert [rename.effective for rename in contracts.shop("orders").standing()] == [date(1998, 7, 4)]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"effective": "soon"}, "expected YYYY-MM-DD"),
        ({"from": "price"}, "expected one of both names, and one only, to be a column"),
        ({"to": "units"}, "expected one of both names, and one only, to be a column"),
        ({"from": "order_id"}, "landing finds rows by it, so it keeps its name"),
        ({"to": "known_at"}, "landing adds a column of that name to every row"),
        ({"until": "1998-08-01"}, "expected from, to, announced and effective"),
    ],
)
def test_an_announcement_that_cannot_be_kept_is_refused(folder: Path, changed: dict[str, str], told: str) -> None:
    announce(folder, **changed)
    with pytest.raises(ContractError, match=told):
        contracts.shop("orders")


def test_the_standards_schema_is_the_published_one(home: Path) -> None:
    digest = hashlib.sha256(odcs.SCHEMA.read_bytes()).hexdigest()
    assert digest in (odcs.SCHEMA.parent / "README.md").read_text()


def test_a_feature_or_a_prediction_has_no_range_that_nothing_would_check(folder: Path) -> None:
    spoil(folder, lambda d: limit(d, 4, minimum=0), "features.customers")
    with pytest.raises(ContractError, match="nothing here would check a range of features.customers"):
        contracts.load("features.customers")


def test_a_calendar_has_a_zone_and_closed_days(folder: Path) -> None:
    assert contracts.shop("orders").last_date(date(1998, 6, 30)) == date(1998, 6, 30)
    spoil(folder, lambda d: (custom(d, "timeZone", "Asia/Kathmandu"), custom(d, "closedDays", ["12-25", "1998-04-12"])))
    orders = contracts.calendar("analytics.orders")
    assert orders.last_date(date(1998, 6, 30)) == date(1998, 7, 1), "20:00 UTC is the next day there"
    closed = [day for day in (date(1997, 12, 25), date(1998, 4, 12), date(1997, 4, 12)) if day in orders.closed_days]
    assert closed == [date(1997, 12, 25), date(1998, 4, 12)]


def test_a_type_of_32_bits_limits_its_column_by_itself(folder: Path) -> None:
    spoil(folder, lambda d: columns(d)[3].update(physicalType="int", logicalTypeOptions={"minimum": 1}))
    assert contracts.shop("orders").columns["units"].limits == Limits(1, 2**31 - 1)
