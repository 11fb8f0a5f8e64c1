"""A contract's file: an Open Data Contract Standard document, read into what the platform holds data against.

The file is valid by the standard's own JSON schema, and says nothing that nobody here would check: a rule, an option,
a service level or a custom property that nothing reads is refused with its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.contracts import custom_properties, quality
from plumbline.contracts.contract import (
    KINDS,
    LANDING,
    NAME,
    NOTICE,
    SUFFIX,
    Column,
    Contract,
    ContractError,
    Level,
)
from plumbline.contracts.limits import Limits, LimitsError

if TYPE_CHECKING:
    import jsonschema
    from open_data_contract_standard.model import DataQuality, OpenDataContractStandard, SchemaObject, SchemaProperty

SCHEMA = Path(__file__).parent / "odcs_schema" / "odcs-json-schema-v3.1.0.json"
"""The standard's schema as published; README.md beside it names source and licence."""

KEY_KINDS = ("integer", "string", "date")
"""What a column of a shop's key may be: what is the same value in each database, and as text."""

RULED = ("shop.", "analytics.", "features.")
RANGED = ("shop.", "analytics.", "orders.events")
"""How the datasets begin whose rules of a whole table are run: at landing, or by the stage that writes the table."""

READERS = {
    "completeness": ("",),
    "schemaNotice": ("",),
    "timeOfAvailability": ("analytics.", "features."),
    "availability": ("serving.",),
    "latency": ("serving.", "features.customer_activity"),
}
"""The service levels that rules and alerts are made from, each with the datasets (by how they begin) it is read of.
A predictor with several inputs promises a latency for each: the level's element is the input's name."""


def read(path: Path) -> Contract:
    """The contract in a file. Raises ContractError that names the file and the place in it."""
    document = _validated(path)
    tables = document.schema_ or []
    if len(tables) != 1:
        raise bad(path, "schema", f"expected one object, found {len(tables)}")
    table, dataset = tables[0], path.name.removesuffix(SUFFIX)
    for place, name in (("id", document.id), ("schema[0].name", table.name)):
        if name != dataset:
            raise bad(path, place, f"expected {dataset}, the file's name; found {name}")
    columns, key = _columns(path, dataset, table)
    team, support = document.team, document.support or []
    members = (team.members or []) if team is not None and not isinstance(team, list) else []
    owners = [member.username for member in members if member.role == "owner"]
    if not owners:
        raise bad(path, "team", "expected a name and a member of role owner")
    if not support:
        raise bad(path, "support", "expected a channel, where changes and failures are told")
    numbers = (document.version or "").split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise bad(path, "version", f"expected numbers as in 1.0.0, found {document.version}")
    about = document.description
    custom = custom_properties.read(path, dataset, document.customProperties or [], columns, key)
    return Contract(
        dataset=dataset,
        product=document.dataProduct or "",
        physical=table.physicalName or dataset,
        version=str(document.version),
        title=document.name or dataset,
        purpose=(about and about.purpose) or "",
        usage=(about and about.usage) or "",
        limitations=(about and about.limitations) or "",
        grain=table.dataGranularityDescription or "",
        team=str(getattr(team, "name", "")),
        owner=str(owners[0]),
        channel=str(support[0].channel),
        path=path,
        columns=columns,
        key=key,
        levels=_levels(path, dataset, document, custom.objectives),
        renames=custom.renames,
        zone=custom.zone,
        closed_days=custom.closed_days,
        left_out=custom.left_out,
        recorded=custom.recorded,
        daily_rows=custom.daily_rows,
        rules=_rules(path, dataset, table.quality or [], columns),
    )


def bad(path: Path, place: str, told: str) -> ContractError:
    """What is wrong in a contract's file, and where."""
    return ContractError(f"{path}: {place}: {told}")


@cache
def schema() -> dict[str, Any]:
    """The standard's JSON schema."""
    content: dict[str, Any] = json.loads(SCHEMA.read_text())
    return content


@cache
def _loader() -> Any:
    """YAML's safe loader, which also refuses a name that is stated twice: by itself the last one would count."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """For contracts."""

    def mapping(loader: Any, node: Any) -> Any:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := [name for name in names if isinstance(name, str) and names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is stated twice", node.start_mark)
        yield from yaml.SafeLoader.construct_yaml_map(loader, node)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    return Loader


def _validated(path: Path) -> OpenDataContractStandard:
    """The file by the standard's own schema, which says more than its classes do, and then as its classes."""
    import jsonschema
    import yaml
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    try:
        content = _loader()(path.read_text("utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: not YAML in UTF-8: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ContractError(f"{path}: not YAML of a contract: too many brackets within each other") from None
    validator = jsonschema.Draft201909Validator(schema())
    problems = sorted(validator.iter_errors(content), key=lambda problem: str(problem.json_path))
    if problems:
        raise ContractError(
            f"{path} is no Open Data Contract of v3:\n  "
            + "\n  ".join(f"{problem.json_path.lstrip('$.') or 'file'}: {_told(problem)}" for problem in problems)
        )
    try:
        return OpenDataContractStandard(**content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)]
        raise ContractError(f"{path} is no Open Data Contract of v3:\n  " + "\n  ".join(lines)) from None


def _told(problem: jsonschema.ValidationError) -> str:
    """What the standard's schema says, in short; of names of which one is to be stated, which they are."""
    if problem.validator == "oneOf" and all(set(one) >= {"required"} for one in problem.validator_value):
        names = [name for one in problem.validator_value for name in one["required"]]
        stated = [name for name in names if name in problem.instance]
        return f"expected one of {', '.join(names)}; found {', '.join(stated) or 'none'}"
    return str(problem.message[:300])


def _columns(path: Path, dataset: str, table: SchemaObject) -> tuple[dict[str, Column], tuple[str, ...]]:
    """The table's columns by name, and its key."""
    properties = table.properties or []
    keys = sorted((p for p in properties if p.primaryKey), key=lambda p: p.primaryKeyPosition or 0)
    key = tuple(str(p.name) for p in keys)
    columns = {column.name: column for column in (_column(path, dataset, n, p) for n, p in enumerate(properties))}
    if not columns or len(columns) != len(properties):
        raise bad(path, "schema[0].properties", "expected columns, each once")
    if not key:
        raise bad(path, "schema[0].properties", "no column is primaryKey: say what tells one row from another")
    if dataset.startswith("shop.") and (taken := [name for name in columns if name in LANDING]):
        raise bad(path, "schema[0].properties", f"{', '.join(taken)}: landing adds columns of that name to every row")
    if dataset.startswith("shop.") and (odd := [name for name in key if columns[name].kind not in KEY_KINDS]):
        kinds = ", ".join(f"{name} is a {columns[name].kind}" for name in odd)
        raise bad(
            path, "schema[0].properties", f"a key's columns are {' or '.join(KEY_KINDS)}; {kinds}: cast it in a view"
        )
    if dataset.startswith("shop.") and (absent := [name for name in key if not columns[name].required]):
        raise bad(path, "schema[0].properties", f"{', '.join(absent)}: a key's columns are required: true")
    for name, column in columns.items():
        if column.unique and not (dataset.startswith("analytics.") or (dataset.startswith("shop.") and key == (name,))):
            raise bad(
                path,
                f"schema[0].properties ({name})",
                "unique: nothing here would check it. A shop's key, and any column of a mart, may be unique",
            )
    return columns, key


def _rules(
    path: Path, dataset: str, given: Sequence[DataQuality], columns: Mapping[str, Column]
) -> tuple[quality.Rule, ...]:
    """The rules of the whole table."""
    if given and not dataset.startswith(RULED):
        raise bad(path, "schema[0].quality", f"nothing here would run a rule of {dataset}: state it of a table")
    rules: list[quality.Rule] = []
    for position, item in enumerate(given):
        place = f"schema[0].quality[{position}]"
        try:
            rule = quality.read(item, position, columns)
        except quality.RuleError as error:
            raise bad(path, f"{place} ({item.name})" if item.name else place, str(error)) from None
        if any(rule.name == other.name for other in rules):
            raise bad(path, place, f"{rule.name}: two rules of that name: messages could not tell them apart")
        rules.append(rule)
    return tuple(rules)


def _column(path: Path, dataset: str, position: int, given: SchemaProperty) -> Column:
    place = f"schema[0].properties[{position}]"
    name, physical = str(given.name), given.physicalType or ""
    if not NAME.match(name):
        raise bad(path, f"{place}.name", f"expected lower case, digits and _, found {name!r}")
    if physical not in KINDS or KINDS[physical] != given.logicalType:
        pairs = ", ".join(f"{kind} ({logical})" for kind, logical in KINDS.items())
        raise bad(
            path,
            f"{place} ({name})",
            f"expected a physicalType with its logicalType: {pairs}; found {physical} ({given.logicalType})",
        )
    if not given.description:
        raise bad(path, f"{place} ({name})", "expected a description")
    options, rules = given.logicalTypeOptions or {}, given.quality or []
    for rule in rules:
        if rule.engine != "plumbline" or rule.implementation != {"latest": "asOf"} or physical != "date":
            raise bad(
                path,
                f"{place}.quality ({name})",
                f"expected engine plumbline with implementation {{latest: asOf}} on a date, found {rule.engine} with "
                f"{rule.implementation} on a {physical}: nothing here would check it",
            )
    if unknown := sorted(set(options) - {"minimum", "maximum"}):
        raise bad(path, f"{place}.logicalTypeOptions ({name})", f"nothing here would check {', '.join(unknown)}")
    if (options or rules) and not dataset.startswith(RANGED):
        raise bad(path, f"{place} ({name})", f"nothing here would check a range of {dataset}: state it of a mart")
    if relationships := getattr(given, "relationships", None):
        raise bad(path, f"{place}.relationships ({name})", f"nothing here would check {relationships}: use a dbt test")
    try:
        limits = Limits.stated(physical, options.get("minimum"), options.get("maximum"))
    except LimitsError as error:
        raise bad(path, f"{place}.logicalTypeOptions ({name})", str(error)) from None
    return Column(
        name=name,
        kind=KINDS[physical],
        type=physical,
        description=given.description,
        required=bool(given.required),
        unique=bool(given.unique),
        minimum=options.get("minimum"),
        maximum=options.get("maximum"),
        limits=limits,
        not_after_run=bool(rules),
        why=next((str(rule.description) for rule in rules if rule.description), ""),
    )


def _levels(
    path: Path, dataset: str, document: OpenDataContractStandard, objectives: Mapping[str, float]
) -> tuple[Level, ...]:
    levels: list[Level] = []
    for position, given in enumerate(document.slaProperties or []):
        name, place = str(given.property), f"slaProperties[{position}] ({given.property})"
        if not any(dataset.startswith(beginning) for beginning in READERS.get(name, ())):
            readable = [known for known, beginnings in READERS.items() if dataset.startswith(beginnings)]
            raise bad(path, place, f"nothing here reads it of {dataset}; read are {', '.join(readable)}")
        element = given.element or ""
        if any(level.property == name and (name != "latency" or level.element == element) for level in levels):
            raise bad(path, place, "stated twice: only one would be read")
        if name == "schemaNotice" and (str(given.value), given.unit) != (str(NOTICE.days), "d"):
            raise bad(
                path, place, f"expected {NOTICE.days} d, the notice that is kept; found {given.value} {given.unit}"
            )
        levels.append(
            Level(
                property=name,
                value=given.value if isinstance(given.value, str | float | int) else str(given.value),
                unit=given.unit or "",
                element=element,
                description=given.description or "",
                objective=objectives.get(name),
            )
        )
    stated = {level.property for level in levels}
    if missing := {"completeness", "schemaNotice"} - stated:
        raise bad(path, "slaProperties", f"expected {' and '.join(sorted(missing))}")
    if unknown := sorted(set(objectives) - stated):
        raise bad(path, "customProperties.objectives", f"{', '.join(unknown)}: slaProperties state no such level")
    return tuple(levels)
