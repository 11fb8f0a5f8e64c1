"""What a contract says in the standard's `customProperties`: announced renames, the shop's calendar, how many rows a
day has, columns left out, which column says when a row was recorded.

customProperties:
  - {property: timeZone, value: Asia/Kathmandu}
  - {property: closedDays, value: ["12-25", "2026-01-02"]}
  - {property: dailyRows, value: 1}              # each open day records so many rows at least
  - {property: leftOut, value: [photo]}
  - {property: recordedAt, value: updated_at}    # a timestamp or a date; none: keys and values are compared
  - {property: objectives, value: [{level: timeOfAvailability, percent: 99.5}]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from plumbline.contracts.contract import LANDING, NAME, RECORDED, UTC_ZONE, ClosedDays, Column, ContractError, Rename

if TYPE_CHECKING:
    from open_data_contract_standard.model import CustomProperty


@dataclass(frozen=True)
class Custom:
    """All that a contract may say there. `objectives` are percentages by service level."""

    renames: tuple[Rename, ...] = ()
    zone: ZoneInfo = UTC_ZONE
    closed_days: ClosedDays = field(default_factory=ClosedDays)
    left_out: tuple[str, ...] = ()
    recorded: str | None = RECORDED
    daily_rows: int = 0
    objectives: Mapping[str, float] = field(default_factory=dict)


def read(
    path: Path, dataset: str, given: Sequence[CustomProperty], columns: Mapping[str, Column], key: Sequence[str]
) -> Custom:
    """What a contract's custom properties say. Raises ContractError for what is malformed or what nothing reads."""

    def bad(name: str, told: str) -> ContractError:
        return ContractError(f"{path}: customProperties.{name}: {told}")

    values: dict[str, list[Any]] = {}
    for item in given:
        name = str(item.property)
        if name in values:
            raise bad(name, "stated twice: only one would be read")
        values[name] = item.value if isinstance(item.value, list) else [item.value]
    readers: dict[str, Callable[[list[Any]], Any]] = {"objectives": _objectives}
    if dataset.startswith("shop."):
        readers |= {
            "recordedAt": lambda value: _recorded(value, columns),
            "announcedRenames": lambda value: _renames(
                value, columns, {*key, *map(str, values.get("recordedAt", [RECORDED]))}
            ),
            "timeZone": _zone,
            "closedDays": _closed_days,
            "dailyRows": lambda value: _daily_rows(value, values.get("recordedAt")),
            "leftOut": lambda value: _left_out(value, columns),
        }
    if unknown := sorted(set(values) - set(readers)):
        raise bad(unknown[0], f"nothing here reads it of {dataset}; read are {', '.join(sorted(readers))}")
    read_values: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read_values[name] = readers[name](value)
        except _Malformed as error:
            raise bad(f"{name}{error.place}", error.told) from None
    recorded = read_values.get("recordedAt", RECORDED)
    if dataset.startswith("shop.") and recorded == RECORDED in columns and columns[RECORDED].kind != "timestamp":
        kind = columns[RECORDED].kind
        raise bad("recordedAt", f"{RECORDED} is a {kind}: offer a {kind} under another name, and name that")
    if dataset.startswith("shop.") and recorded in columns and not columns[recorded].required:
        raise bad("recordedAt", f"{recorded} says when a row was recorded: it is required: true")
    if dataset.startswith("shop.") and recorded not in (*columns, None):
        raise bad(
            "recordedAt",
            f"no column is {RECORDED}: name the column that says when a row was recorded (a timestamp or a date), or "
            "none, and keys and values are compared with what landed",
        )
    return Custom(
        read_values.get("announcedRenames", ()),
        read_values.get("timeZone", UTC_ZONE),
        read_values.get("closedDays", ClosedDays()),
        read_values.get("leftOut", ()),
        recorded,
        read_values.get("dailyRows", 0),
        read_values.get("objectives", {}),
    )


class _Malformed(ValueError):
    """A value is not what its property expects; `place` is where in it."""

    def __init__(self, told: str, place: str = "") -> None:
        super().__init__(told)
        self.told, self.place = told, place


def _objectives(value: list[Any]) -> dict[str, float]:
    for position, item in enumerate(value):
        percent = item.get("percent") if isinstance(item, dict) and set(item) == {"level", "percent"} else None
        if not isinstance(percent, int | float) or not 0 < percent <= 100:
            raise _Malformed(f"expected level and percent (above 0, at most 100), found {item}", f"[{position}]")
    return {str(item["level"]): float(item["percent"]) for item in value}


def _zone(value: list[Any]) -> ZoneInfo:
    try:
        (name,) = value
        return ZoneInfo(str(name))
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise _Malformed(f"expected a time zone as in Asia/Tokyo or UTC, found {value}") from None


def _closed_days(value: list[Any]) -> ClosedDays:
    yearly, once = set(), set()
    for position, item in enumerate(value):
        text = str(item)
        try:
            if len(text) == len("12-25"):
                yearly.add(date.fromisoformat(f"2000-{text}").timetuple()[1:3])
            else:
                once.add(date.fromisoformat(text))
        except ValueError:
            raise _Malformed(f'expected "12-25" (each year) or "2026-01-02", found {item!r}', f"[{position}]") from None
    return ClosedDays(frozenset((month, day) for month, day in yearly), frozenset(once))


def _daily_rows(value: list[Any], recorded: list[Any] | None) -> int:
    if len(value) != 1 or type(value[0]) is not int or value[0] < 1:
        raise _Malformed(f"expected how many rows each open day has at least, as in 1; found {value}")
    if recorded == ["none"]:
        raise _Malformed("no column says on which day a row was recorded (recordedAt: none)")
    return int(value[0])


def _recorded(value: list[Any], columns: Mapping[str, Column]) -> str | None:
    """The column that says when a row was recorded; None when there is said to be none."""
    name = str(value[0]) if len(value) == 1 else ""
    if name != "none" and name not in columns:
        raise _Malformed(f"expected one of {', '.join(columns)}, or none; found {value}")
    if RECORDED in columns and name != RECORDED:
        raise _Malformed(
            f"{name}, and the contract promises a column {RECORDED} too: raw has {RECORDED} of what this says; offer "
            "the shop's column under another name, or name it in leftOut"
        )
    if name == "none":
        return None
    column = columns[name]
    if column.kind not in ("timestamp", "date") or not column.required:
        raise _Malformed(
            f"{name}: expected a timestamp or a date that is required, found a "
            f"{'required ' if column.required else ''}{column.kind}"
        )
    return name


def _left_out(value: list[Any], columns: Mapping[str, Column]) -> tuple[str, ...]:
    if promised := [name for name in value if name in columns]:
        raise _Malformed(f"{', '.join(promised)}: the contract promises it, so it lands: take it out of one of both")
    if not all(isinstance(name, str) and name for name in value):
        raise _Malformed(f"expected names of the shop's columns, found {value}")
    return tuple(value)


def _renames(value: list[Any], columns: Mapping[str, Column], fixed: set[str]) -> tuple[Rename, ...]:
    renames: list[Rename] = []
    for position, item in enumerate(value):
        place = f"[{position}]"
        if not isinstance(item, dict) or set(item) != {"from", "to", "announced", "effective"}:
            raise _Malformed(f"expected from, to, announced and effective (YYYY-MM-DD), found {item}", place)
        try:
            days = [date.fromisoformat(str(item[name])) for name in ("announced", "effective")]
        except ValueError as error:
            raise _Malformed(f"{error}: expected YYYY-MM-DD", place) from None
        rename = Rename(str(item["from"]), str(item["to"]), *days)
        if rename.old == rename.new or len({rename.old, rename.new} & set(columns)) != 1 or not NAME.match(rename.new):
            raise _Malformed(f"{rename.told()}: expected one of both names, and one only, to be a column", place)
        if {rename.old, rename.new} & fixed:
            raise _Malformed(f"{rename.told()}: landing finds rows by it, so it keeps its name", place)
        if rename.new in LANDING:
            raise _Malformed(f"{rename.told()}: landing adds a column of that name to every row", place)
        if any(rename.old == other.old or rename.new == other.new for other in renames):
            raise _Malformed(f"{rename.told()}: another rename has one of both names", place)
        renames.append(rename)
    return tuple(renames)
