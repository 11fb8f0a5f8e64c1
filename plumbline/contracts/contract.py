"""The contracts of `contracts/*.odcs.yaml`: what each dataset promises, the one source for whoever checks or says it.

A file is an Open Data Contract Standard document, valid by the standard's schema and by what Plumbline asks on top:
an owner, a channel, service levels, a version, a type for each column. `PLUMBLINE_CONTRACTS` names another folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.settings import settings

if TYPE_CHECKING:
    from open_data_contract_standard.model import OpenDataContractStandard, SchemaProperty

SUFFIX = ".odcs.yaml"
RECORDED = "recorded_at"
"""When the shop recorded a row: what landing's windows are over."""

NOTICE = timedelta(days=7)
"""How long before it takes effect a breaking change is announced."""

KINDS = {
    "bigint": "integer",
    "int": "integer",
    "float": "number",
    "double": "number",
    "date": "date",
    "timestamp": "timestamp",
    "string": "string",
    "boolean": "boolean",
}
"""The physical types that a contract may name, as Delta has them, each with its logical one."""

NAME = re.compile(r"^[a-z][a-z0-9_]*$")


class ContractError(PlumblineError):
    """A contract is missing, malformed, or promises what nobody could keep."""


@dataclass(frozen=True)
class Column:
    """One column; `minimum` and `maximum` are inclusive, `not_after_run`: never dated behind the day a run covers."""

    name: str
    kind: str
    type: str
    description: str
    required: bool
    unique: bool
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    not_after_run: bool = False
    why: str = ""


@dataclass(frozen=True)
class Rename:
    """A column that gets another name at `effective`, 00:00 UTC; until then both are there, filled."""

    old: str
    new: str
    announced: date
    effective: date

    def over(self) -> bool:
        """Whether the notice has ended, by the platform's clock."""
        return clock.now().date() >= self.effective

    def stands(self) -> bool:
        """Whether it is announced by now, by the platform's clock, and at least NOTICE before it takes effect."""
        return self.announced <= clock.now().date() and self.effective - self.announced >= NOTICE

    def told(self) -> str:
        """As it stands in messages."""
        return f"{self.old} becomes {self.new} on {self.effective}, announced {self.announced}"


@dataclass(frozen=True)
class Level:
    """A service level; `objective` is the percentage of days on which it holds, where it is not always."""

    property: str
    value: str | float
    unit: str
    element: str
    description: str
    objective: float | None


@dataclass(frozen=True)
class Contract:
    """What one dataset promises. `key` names the columns that together tell one row from another."""

    dataset: str
    product: str
    physical: str
    version: str
    title: str
    purpose: str
    usage: str
    limitations: str
    grain: str
    team: str
    owner: str
    channel: str
    path: Path
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    levels: tuple[Level, ...]
    renames: tuple[Rename, ...]

    @property
    def file(self) -> str:
        """The file's name for messages."""
        return f"contracts/{self.path.name}"

    def standing(self) -> list[Rename]:
        """The renames that were announced in time: both names are known, before and after they take effect."""
        return [rename for rename in self.renames if rename.stands()]

    def accepted(self, column: str) -> tuple[str, ...]:
        """The names under which a column may be delivered today: during a notice either, after it the new one."""
        for rename in self.standing():
            if column in (rename.old, rename.new):
                return (rename.new,) if rename.over() else (rename.new, rename.old)
        return (column,)


def folder() -> Path:
    """Where the contracts are."""
    return settings().contracts


def load(dataset: str) -> Contract:
    """The contract of a dataset. Raises ContractError that names the file and the place in it."""
    path = folder() / f"{dataset}{SUFFIX}"
    if not path.exists():
        known = sorted(found.name.removesuffix(SUFFIX) for found in folder().glob(f"*{SUFFIX}"))
        raise ContractError(f"there is no contract of {dataset} at {path}; there are {', '.join(known) or 'none'}")
    return _load(path, path.stat().st_mtime_ns)


def shop(table: str) -> Contract:
    """The contract of a table of the shop, by the name that it has there."""
    return load(f"shop.{table}")


def of_table(table: str) -> Contract:
    """The contract that a lake table's rows keep: a raw table's is that of the shop's table."""
    schema, _, name = table.partition(".")
    return shop(name) if schema == "raw" else load(table)


@cache
def _load(path: Path, changed: int) -> Contract:
    document = _validated(path)
    objects = document.schema_ or []
    if len(objects) != 1:
        raise _bad(path, "schema", f"expected one object, found {len(objects)}")
    table, dataset = objects[0], path.name.removesuffix(SUFFIX)
    for place, found in (("id", document.id), ("schema[0].name", table.name)):
        if found != dataset:
            raise _bad(path, place, f"expected {dataset}, the file's name; found {found}")
    properties = table.properties or []
    columns = {column.name: column for column in (_column(path, n, p) for n, p in enumerate(properties))}
    if not columns or len(columns) != len(properties):
        raise _bad(path, "schema[0].properties", "expected columns, each once")
    keys = sorted((p for p in properties if p.primaryKey), key=lambda p: p.primaryKeyPosition or 0)
    if not keys:
        raise _bad(path, "schema[0].properties", "no column is primaryKey: say what tells one row from another")
    team, support = document.team, document.support or []
    members = (team.members or []) if team is not None and not isinstance(team, list) else []
    owners = [member.username for member in members if member.role == "owner"]
    if not owners:
        raise _bad(path, "team", "expected a name and a member of role owner")
    if not support:
        raise _bad(path, "support", "expected a channel, where changes and failures are told")
    if not re.fullmatch(r"\d+\.\d+\.\d+", document.version or ""):
        raise _bad(path, "version", f"expected numbers as in 1.0.0, found {document.version}")
    said = document.description
    return Contract(
        dataset=dataset,
        product=document.dataProduct or "",
        physical=table.physicalName or dataset,
        version=str(document.version),
        title=document.name or dataset,
        purpose=(said and said.purpose) or "",
        usage=(said and said.usage) or "",
        limitations=(said and said.limitations) or "",
        grain=table.dataGranularityDescription or "",
        team=str(getattr(team, "name", "")),
        owner=str(owners[0]),
        channel=str(support[0].channel),
        path=path,
        columns=columns,
        key=tuple(str(p.name) for p in keys),
        levels=_levels(path, document),
        renames=_renames(path, document, columns, [str(p.name) for p in keys]),
    )


def _validated(path: Path) -> OpenDataContractStandard:
    """The file by the standard's own schema, which says more than its classes do, and then as its classes."""
    import jsonschema
    import yaml
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    schema = json.loads((files("open_data_contract_standard") / "schema.json").read_text())
    problems = sorted(
        jsonschema.Draft201909Validator(schema).iter_errors(found), key=lambda problem: str(problem.json_path)
    )
    if problems:
        raise ContractError(
            f"{path} is no Open Data Contract of v3:\n  "
            + "\n  ".join(
                f"{problem.json_path.lstrip('$.') or 'file'}: {problem.message[:300]}" for problem in problems
            )
        )
    try:
        return OpenDataContractStandard(**found)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)]
        raise ContractError(f"{path} is no Open Data Contract of v3:\n  " + "\n  ".join(lines)) from None


def _column(path: Path, position: int, given: SchemaProperty) -> Column:
    place = f"schema[0].properties[{position}]"
    name, physical = str(given.name), given.physicalType or ""
    if not NAME.match(name):
        raise _bad(path, f"{place}.name", f"expected lower case, digits and _, found {name!r}")
    if physical not in KINDS or KINDS[physical] != given.logicalType:
        pairs = ", ".join(f"{kind} ({logical})" for kind, logical in KINDS.items())
        raise _bad(
            path,
            f"{place} ({name})",
            f"expected a physicalType with its logicalType: {pairs}; found {physical} ({given.logicalType})",
        )
    if not given.description:
        raise _bad(path, f"{place} ({name})", "expected a description")
    options, rules = given.logicalTypeOptions or {}, given.quality or []
    for rule in rules:
        if rule.engine != "plumbline" or rule.implementation != {"latest": "asOf"}:
            raise _bad(
                path,
                f"{place}.quality ({name})",
                f"expected engine plumbline with implementation {{latest: asOf}}, found {rule.engine} with "
                f"{rule.implementation}: nothing here would check it",
            )
    if unknown := sorted(set(options) - {"minimum", "maximum"}):
        raise _bad(path, f"{place}.logicalTypeOptions ({name})", f"nothing here would check {', '.join(unknown)}")
    return Column(
        name=name,
        kind=KINDS[physical],
        type=physical,
        description=given.description,
        required=bool(given.required),
        unique=bool(given.unique),
        minimum=options.get("minimum"),
        maximum=options.get("maximum"),
        not_after_run=bool(rules),
        why=next((str(rule.description) for rule in rules if rule.description), ""),
    )


def _levels(path: Path, document: OpenDataContractStandard) -> tuple[Level, ...]:
    found = []
    for given in document.slaProperties or []:
        more = {item.property: item.value for item in given.customProperties or []}
        found.append(
            Level(
                property=str(given.property),
                value=given.value if isinstance(given.value, str | float | int) else str(given.value),
                unit=given.unit or "",
                element=given.element or "",
                description=given.description or "",
                objective=float(str(more["objective"])) if "objective" in more else None,
            )
        )
    if missing := {"completeness", "schemaNotice"} - {level.property for level in found}:
        raise _bad(path, "slaProperties", f"expected {' and '.join(sorted(missing))}")
    return tuple(found)


def _renames(
    path: Path, document: OpenDataContractStandard, columns: Mapping[str, Column], keys: Sequence[str]
) -> tuple[Rename, ...]:
    found = []
    for given in document.customProperties or []:
        if given.property != "announcedRenames":
            continue
        for position, item in enumerate(given.value if isinstance(given.value, list) else [given.value]):
            place = f"customProperties.announcedRenames[{position}]"
            if not isinstance(item, dict) or set(item) != {"from", "to", "announced", "effective"}:
                raise _bad(path, place, f"expected from, to, announced and effective (YYYY-MM-DD), found {item}")
            try:
                days = [date.fromisoformat(str(item[name])) for name in ("announced", "effective")]
            except ValueError as error:
                raise _bad(path, place, f"{error}: expected YYYY-MM-DD") from None
            rename = Rename(str(item["from"]), str(item["to"]), *days)
            if len({rename.old, rename.new} & set(columns)) != 1 or not NAME.match(rename.new):
                raise _bad(path, place, f"{rename.told()}: expected one of both names, and one only, to be a column")
            if {rename.old, rename.new} & {*keys, RECORDED}:
                raise _bad(path, place, f"{rename.told()}: landing finds rows by it, so it keeps its name")
            found.append(rename)
    return tuple(found)


def _bad(path: Path, place: str, told: str) -> ContractError:
    return ContractError(f"{path}: {place}: {told}")
