"""A provider's schema, read out of its makers' bindings for TypeScript (requirements/provider-bindings.txt).

The bindings are generated from the provider's own schema and name, for each resource, every argument with its type,
which are required, which are blocks, and every attribute that only the provider sets. They do not say which optional
arguments the provider fills in when they are left out; here all of a resource's own count as such. Nor do they have
the provider's checks of values: "Enabld" is as good as "Enabled".
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolchain.protobuf import number, wrap

Type = str | list[Any]
"""As the protocol's JSON has it: "string", ["list", "string"], ["object", {"name": type}]."""

Block = dict[str, dict[str, Any]]
"""`attributes` and `block_types` by their names."""

SIMPLE = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
GETTERS: dict[str, Type] = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getStringMapAttribute": ["map", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
    "getNumberMapAttribute": ["map", "number"],
    "getAnyMapAttribute": ["map", "string"],
}
NESTING = {"list": "list", "set": "set", "struct": "single", "map": "map"}

ARGUMENT = re.compile(
    r'^\s+(\w+): \{\s+value: (.*?),\n\s+isBlock: (true|false),\s+type: "(\w+)",\s+storageClassType: "(\w+)"',
    re.S | re.M,
)
INTERFACE = re.compile(r"^export interface (\w+)[^{]*\{(.*?)^\}", re.S | re.M)
MEMBER = re.compile(r"/\*\*(.*?)\*/\s*readonly \w+(\??):", re.S)
FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.S | re.M)
CLASS = re.compile(r"^class \w+ extends cdktf\.Terraform(Resource|DataSource|Provider) \{.*?^\}", re.S | re.M)
GETTER = re.compile(r"get \w+\(\) \{\s+return (.*?);\s+\}", re.S)
FIELD = re.compile(r'this\.(_\w+) = new (?:\w+\.)?(\w+)\(this, "(\w+)"(?:, (true|false))?\)')
VERSION = re.compile(r'"name": "[^"]*/hashicorp/\w+",\s+"version": "([\d.]+)"')


def read(archive: Path, provider: str, wanted: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The provider's own schema, and those of `wanted`, ("resource" or "data", type); what is unknown is left out."""
    places = {"provider": ("provider", provider)}
    for kind, name in wanted:
        folder = name.removeprefix(f"{provider}_").replace("_", "-")
        places[f"data-{provider}-{folder}" if kind == "data" else folder] = (kind, name)
    scripts, types, version = dict.fromkeys(places, ""), dict.fromkeys(places, ""), ""
    with tarfile.open(archive) as packed:
        for member in packed:
            place = re.match(r"package/lib/([\w-]+)/(?:index-structs/)?\w+(\.js|\.d\.ts)$", member.name)
            if not (place and place[1] in places) and member.name != "package/package.json":
                continue
            source = packed.extractfile(member)
            text = source.read().decode() if source else ""
            if not place:
                version = "".join(VERSION.findall(text))
            elif place[2] == ".js":
                scripts[place[1]] += text
            else:
                types[place[1]] += text
    made: dict[str, Any] = {"version": version, "resource": {}, "data": {}}
    for folder, (kind, name) in sorted(places.items()):
        if not scripts[folder]:
            continue
        block = _Bindings(scripts[folder], types[folder]).block()
        if kind == "provider":
            made[kind] = block
        else:
            made[kind][name] = block
    return made


class _Bindings:
    """The two files of one resource: what runs, and its types."""

    def __init__(self, script: str, types: str) -> None:
        self.script = script
        self.functions = {found[1]: found[2] for found in FUNCTION.finditer(script)}
        self.interfaces: dict[str, dict[str, tuple[bool, bool]]] = {}
        for found in INTERFACE.finditer(types):
            self.interfaces[found[1]] = dict(_members(found[2]))
        configs = re.findall(r"^export interface (\w+Config) extends cdktf", types, re.M)
        self.config = configs[0] if configs else next(iter(self.interfaces))

    def block(self) -> Block:
        """The resource's own block."""
        if not (found := CLASS.search(self.script)):
            raise ValueError(f"{self.config}: no resource, data source or provider in its bindings")
        body, is_provider = found[0], found[1] == "Provider"
        made = self._arguments(body[body.index("synthesizeHclAttributes") :], self.config, top=not is_provider)
        if not is_provider:
            self._add_computed(made, body)
            made["attributes"].setdefault("id", {"type": "string", "optional": True, "computed": True})
        return made

    def _arguments(self, body: str, interface: str, *, top: bool) -> Block:
        made: Block = {"attributes": {}, "block_types": {}}
        for name, value, is_block, kind, stored in ARGUMENT.findall(body):
            nested = is_block == "true"
            optional, documented = self.interfaces.get(interface, {}).get(name, (True, nested))
            given: dict[str, Any] = {"optional": True} if optional else {"required": True}
            if not nested:
                if optional and (top or name == "id"):
                    given["computed"] = True
                made["attributes"][name] = {"type": _type(stored, kind), **given}
                continue
            inner_name = stored.removesuffix("List")
            function = self.functions.get(inner_name[0].lower() + inner_name[1:], "")
            inner, nesting = self._arguments(function, inner_name, top=False), NESTING[kind]
            self._add_computed(inner, self._reference(inner_name))
            if documented:
                single = "listMapperHcl" not in value and nesting != "single"
                limits = {"min_items": 0 if optional else 1, "max_items": 1 if single else 0}
                made["block_types"][name] = {"nesting_mode": nesting, "block": inner, **limits}
            else:
                shape = {"nesting_mode": nesting, "attributes": inner["attributes"]}
                made["attributes"][name] = {"nested_type": shape, **given, **({"computed": True} if optional else {})}
        return made

    def _add_computed(self, block: Block, body: str) -> None:
        for name, kind in self._computed(body).items():
            if name not in block["block_types"]:
                block["attributes"].setdefault(name, {"type": kind, "computed": True})

    def _computed(self, body: str) -> dict[str, Type]:
        """What a class can be asked for, by its getters."""
        fields = {field: (made, name, as_set) for field, made, name, as_set in FIELD.findall(body)}
        found: dict[str, Type] = {}
        for expression in GETTER.findall(body):
            if asked := re.search(r"this\.(get\w+)\('(\w+)'\)", expression):
                kind = GETTERS.get(asked[1], "string")
                as_set = "Fn.tolist" in expression and isinstance(kind, list)
                found[asked[2]] = ["set", kind[1]] if as_set else kind
            elif (field := expression.removeprefix("this.")) in fields:
                made, name, as_set = fields[field]
                inner = self._object(made.removesuffix("List").removesuffix("OutputReference"))
                many = "set" if as_set == "true" else "list"
                found[name] = [many, inner] if made.endswith("List") else inner
        return found

    def _object(self, name: str) -> Type:
        body = self._reference(name)
        return ["object", self._computed(body)] if body else "dynamic"

    def _reference(self, name: str) -> str:
        """The class by which a block or an object is read, empty where there is none."""
        found = re.search(rf"^class {name}OutputReference .*?^\}}", self.script, re.S | re.M)
        return found[0] if found else ""


def _members(body: str) -> Iterable[tuple[str, tuple[bool, bool]]]:
    """Of an interface: each argument, whether it may be left out, and whether its comment calls it a block."""
    for comment, mark in MEMBER.findall(body):
        if named := re.search(r"#([a-z0-9_]+)[ }]", comment):
            yield named[1], (mark == "?", re.search(rf"\*\s+{named[1]} block", comment) is not None)


def _type(stored: str, kind: str) -> Type:
    found = _base(stored) or "dynamic"
    return ["set", found[1]] if kind == "set" and isinstance(found, list) else found


def _base(stored: str) -> Type | None:
    if stored in SIMPLE:
        return SIMPLE[stored]
    for suffix, kind in (("List", "list"), ("Map", "map"), ("Set", "set")):
        if stored.endswith(suffix) and (inner := _base(stored.removesuffix(suffix))):
            return [kind, inner]
    return None


def encoded(schema: dict[str, Any]) -> bytes:
    """The answer GetProviderSchema of the plugin protocol, version 6, in protobuf's wire format."""
    answer = wrap(1, _schema(schema["provider"]))
    for place, kind in ((2, "resource"), (3, "data")):
        for name, block in schema[kind].items():
            answer += wrap(place, wrap(1, name.encode()) + wrap(2, _schema(block)))
    return answer


def _schema(block: Block) -> bytes:
    return wrap(2, _block(block))


def _block(block: Block) -> bytes:
    made = b"".join(wrap(2, _attribute(name, told)) for name, told in sorted(block["attributes"].items()))
    for name, told in sorted(block["block_types"].items()):
        nested = wrap(1, name.encode()) + wrap(2, _block(told["block"])) + number(3, MODES[told["nesting_mode"]])
        if told["nesting_mode"] in ("list", "set"):
            nested += number(4, told["min_items"]) + number(5, told["max_items"])
        made += wrap(3, nested)
    return made


def _attribute(name: str, told: dict[str, Any]) -> bytes:
    made = wrap(1, name.encode())
    if shape := told.get("nested_type"):
        inner = b"".join(wrap(1, _attribute(key, each)) for key, each in sorted(shape["attributes"].items()))
        made += wrap(10, inner + number(3, MODES[shape["nesting_mode"]]))
    else:
        made += wrap(2, json.dumps(told["type"]).encode())
    return made + b"".join(
        number(place, 1) for place, key in ((4, "required"), (5, "optional"), (6, "computed")) if told.get(key)
    )


MODES = {"single": 1, "list": 2, "set": 3, "map": 4}
