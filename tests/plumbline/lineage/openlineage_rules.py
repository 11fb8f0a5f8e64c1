"""Whether an event is one by OpenLineage's schema: by the client's classes, and by the published JSON itself.

The classes of openlineage-python are generated from that schema, one for each definition, and every part of an event
names its own by `_schemaURL`. The JSON is in no package; where OPENLINEAGE_SPEC names a copy of the project's folder
`spec`, events are held against it too.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import types
import typing
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import attr

SPEC = Path(os.environ["OPENLINEAGE_SPEC"]) if "OPENLINEAGE_SPEC" in os.environ else None


def broken(event: dict[str, Any]) -> list[str]:
    """What of an event is not as the classes say: an unknown or absent field, or a value of another type."""
    from openlineage.client.generated import base

    return _object(event, base.RunEvent)


def _classes() -> dict[str, type]:
    from openlineage.client import generated

    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for kind in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(kind, type) and attr.has(kind) and hasattr(kind, "_get_schema"):
                found[kind._get_schema()] = kind
    return found


def _object(value: dict[str, Any], kind: type) -> list[str]:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in attr.fields(kind)}
    told = [f"{kind.__name__} has no {name}" for name in value if name not in fields]
    told += [
        f"{kind.__name__} needs {name}" for name, f in fields.items() if f.default is attr.NOTHING and name not in value
    ]
    for name in (name for name in value if name in fields):
        told += _value(value[name], hints[name], f"{kind.__name__}.{name}")
    return told


def _value(value: Any, hint: Any, where: str) -> list[str]:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        tried = [_value(value, one, where) for one in inside]
        return min(tried, key=len)
    if origin is list and isinstance(value, list):
        return [told for item in value for told in _value(item, inside[0], where)]
    if origin is dict and isinstance(value, dict):
        return [told for item in value.values() for told in _value(item, inside[1], where)]
    if hint is Any:
        return []
    if isinstance(hint, type) and attr.has(hint) and isinstance(value, dict):
        return _object(value, _classes().get(value.get("_schemaURL", ""), hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [] if value in [member.value for member in hint] else [f"{where} is {value!r}, expected {hint.__name__}"]
    right = isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return [] if right else [f"{where} is {value!r}, expected {getattr(hint, '__name__', hint)}"]


def published() -> Callable[[dict[str, Any]], list[str]]:
    """A check of events against the JSON in SPEC, of each facet against its own file too."""
    from jsonschema import Draft202012Validator, FormatChecker
    from referencing import Registry, Resource

    assert SPEC is not None
    files = [json.loads(path.read_text()) for path in (SPEC / "OpenLineage.json", *(SPEC / "facets").glob("*.json"))]
    registry: Any = Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in files])
    known = {one["$id"] for one in files}

    def against(value: Any, schema: str) -> list[str]:
        if schema.partition("#")[0] not in known:
            return [f"{schema} is not among the published ones"]
        check = Draft202012Validator({"$ref": schema}, registry=registry, format_checker=FormatChecker())
        return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in check.iter_errors(value)]

    def facets(value: Any) -> list[str]:
        if isinstance(value, list):
            return [told for item in value for told in facets(item)]
        if not isinstance(value, dict):
            return []
        own = against(value, value["_schemaURL"]) if "_schemaURL" in value else []
        return own + [told for item in value.values() for told in facets(item)]

    return lambda event: against(event, event["schemaURL"]) + facets(event)
