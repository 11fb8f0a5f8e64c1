"""What contracts promise of time, completeness and answers, as numbers that rules and exporter share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract, ContractError, Level
from plumbline.metrics import STREAM
from plumbline.product import Product

DAYS = 200
"""The window of a daily promise: the shortest in which one late day is what 99.5% allow."""


@dataclass(frozen=True)
class Ratio:
    """A promise that `objective` percent of something are good; `budget` is the share that may be bad."""

    objective: float

    @property
    def budget(self) -> float:
        """The share that may be bad, 0 to 1."""
        return round(1 - self.objective / 100, 8)


def level(contract: Contract, name: str) -> Level | None:
    """A contract's service level of that property, None when it promises none."""
    return next((found for found in contract.levels if found.property == name), None)


def deadline(contract: Contract) -> timedelta | None:
    """How long after its end a day is in force at the latest; None when the contract promises nothing of it.

    Raises ContractError when the promise is not a time of day in UTC.
    """
    promised = level(contract, "timeOfAvailability")
    if promised is None:
        return None
    hours, _, minutes = str(promised.value).partition(":")
    if promised.unit != "UTC" or not (hours.isdigit() and minutes.isdigit()):
        raise ContractError(
            f"{contract.file}: timeOfAvailability: expected HH:MM with unit UTC, found {promised.value} {promised.unit}"
        )
    return timedelta(hours=int(hours), minutes=int(minutes))


def late_days_allowed(contract: Contract) -> float:
    """How many of DAYS days may be late."""
    promised = level(contract, "timeOfAvailability")
    if promised is None or promised.objective is None:
        raise ContractError(f"{contract.file}: timeOfAvailability needs a percentage in customProperties, objectives")
    return round(DAYS * Ratio(promised.objective).budget, 6)


def complete(contract: Contract) -> tuple[Ratio, tuple[str, ...]] | None:
    """The promised completeness and its columns; None when the contract promises none."""
    promised = level(contract, "completeness")
    if promised is None:
        return None
    columns = tuple(name.strip() for name in promised.element.split(","))
    if unknown := [name for name in columns if name not in contract.columns]:
        raise ContractError(f"{contract.file}: completeness: {', '.join(unknown)}: no column of that name")
    return Ratio(float(promised.value)), columns


def fresh(contract: Contract) -> tuple[Ratio, float] | None:
    """The share of a stream's events that can be read in so many seconds; None when none is promised.

    Raises ContractError for seconds that the stream does not count by.
    """
    promised = level(contract, "latency")
    if promised is None:
        return None
    counted = next(metric.buckets for metric in STREAM if metric.name == "events_freshness_seconds")
    if promised.objective is None or promised.unit != "s" or float(promised.value) not in counted:
        wanted = f"{', '.join(f'{seconds:g}' for seconds in counted)} s, with a percentage in objectives"
        raise ContractError(f"{contract.file}: latency: expected one of {wanted}")
    return Ratio(promised.objective), float(promised.value)


@dataclass(frozen=True)
class Speed:
    """Of predictions that ask by `input` (its name in v2), the share that is answered in so many milliseconds."""

    input: str
    ratio: Ratio
    milliseconds: float


def predictor(product: Product) -> Contract:
    """The contract that holds its predictor's promises: of what it writes down of every answer."""
    return contracts.load(product.log)


def available(product: Product) -> Ratio:
    """The share of requests that are answered without a fault of ours."""
    promised = level(predictor(product), "availability")
    if promised is None:
        raise ContractError(f"{predictor(product).file}: slaProperties: expected availability")
    return Ratio(float(promised.value))


def fast(product: Product) -> tuple[Speed, ...]:
    """How fast predictions are, by each input; at least one is promised."""
    contract = predictor(product)
    stated = [one for one in contract.levels if one.property == "latency"]
    if not stated or any(one.objective is None or one.unit != "ms" or not one.element for one in stated):
        wanted = "an input's name as its element and a percentage in objectives"
        raise ContractError(f"{contract.file}: expected latency in ms, with {wanted}")
    return tuple(Speed(one.element, Ratio(one.objective or 0.0), float(one.value)) for one in stated)
