"""A schema out of bindings: what is required, what is a block, what only the provider sets."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from toolchain import provider_schema

PACKAGE = '{"cdktf": {"provider": {"name": "somewhere/hashicorp/aws",\n "version": "6.25.0"}}}'

PROVIDER = (
    """class AwsProvider extends cdktf.TerraformProvider {
    synthesizeHclAttributes() {
        const attrs = {
            region: {
                value: cdktf.stringToHclTerraform(this._region),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
        };
    }
}
""",
    """export interface AwsProviderConfig {
    /**
    * {@link address#region AwsProvider#region}
    */
    readonly region?: string;
}
""",
)

SCRIPT = """function thingRuleToHclTerraform(struct) {
    const attrs = {
        days: {
            value: cdktf.numberToHclTerraform(struct.days),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
        names: {
            value: cdktf.listMapperHcl(cdktf.stringToHclTerraform, false)(struct.names),
            isBlock: false,
            type: "set",
            storageClassType: "stringList",
        },
    };
}
class ThingRuleOutputReference extends cdktf.ComplexObject {
    get days() {
        return this.getNumberAttribute('days');
    }
    get group() {
        return this.getStringAttribute('group');
    }
}
class ThingOriginOutputReference extends cdktf.ComplexObject {
    get tags() {
        return this.getStringMapAttribute('tags');
    }
}
class Thing extends cdktf.TerraformResource {
    constructor(scope, id, config) {
        this._rule = new ThingRuleOutputReference(this, "rule");
        this._origin = new ThingOriginList(this, "origin", true);
    }
    get arn() {
        return this.getStringAttribute('arn');
    }
    get name() {
        return this.getStringAttribute('name');
    }
    get origin() {
        return this._origin;
    }
    get rule() {
        return this._rule;
    }
    synthesizeHclAttributes() {
        const attrs = {
            name: {
                value: cdktf.stringToHclTerraform(this._name),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            tags: {
                value: cdktf.hashMapperHcl(cdktf.stringToHclTerraform)(this._tags),
                isBlock: false,
                type: "map",
                storageClassType: "stringMap",
            },
            rule: {
                value: thingRuleToHclTerraform(this._rule.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ThingRuleList",
            },
        };
    }
}
"""

TYPES = """export interface ThingConfig extends cdktf.TerraformMetaArguments {
    /**
    * {@link address#name Thing#name}
    */
    readonly name: string;
    /**
    * {@link address#tags Thing#tags}
    */
    readonly tags?: {
        [key: string]: string;
    };
    /**
    * rule block
    *
    * {@link address#rule Thing#rule}
    */
    readonly rule: ThingRule;
}
export interface ThingRule {
    /**
    * {@link address#days Thing#days}
    */
    readonly days: number;
    /**
    * {@link address#names Thing#names}
    */
    readonly names?: string[];
}
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    files = {
        "package.json": PACKAGE,
        "lib/provider/index.js": PROVIDER[0],
        "lib/provider/index.d.ts": PROVIDER[1],
        "lib/big-thing/index.js": SCRIPT,
        "lib/big-thing/index.d.ts": TYPES,
        "lib/other/index.js": "nobody asks for this",
    }
    with tarfile.open(tmp_path / "bindings.tgz", "w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return tmp_path / "bindings.tgz"


def test_what_is_required_what_is_a_block_and_what_only_the_provider_sets(archive: Path) -> None:
    made = provider_schema.read(archive, "aws", {("resource", "aws_big_thing"), ("resource", "aws_unknown")})
    assert made["version"] == "6.25.0" and made["data"] == {} and list(made["resource"]) == ["aws_big_thing"]
    assert made["provider"] == {"attributes": {"region": {"type": "string", "optional": True}}, "block_types": {}}
    thing = made["resource"]["aws_big_thing"]
    assert thing["attributes"] == {
        "name": {"type": "string", "required": True},
        "tags": {"type": ["map", "string"], "optional": True, "computed": True},
        "arn": {"type": "string", "computed": True},
        "origin": {"type": ["set", ["object", {"tags": ["map", "string"]}]], "computed": True},
        "id": {"type": "string", "optional": True, "computed": True},
    }
    rule = {
        "days": {"type": "number", "required": True},
        "names": {"type": ["set", "string"], "optional": True},
        "group": {"type": "string", "computed": True},
    }
    block = {"attributes": rule, "block_types": {}}
    assert thing["block_types"] == {"rule": {"nesting_mode": "list", "block": block, "min_items": 1, "max_items": 1}}


def test_the_protocol_s_answer_names_everything(archive: Path) -> None:
    from toolchain.protobuf import field

    answer = provider_schema.encoded(provider_schema.read(archive, "aws", [("resource", "aws_big_thing")]))
    entry = field(answer, 2)
    assert field(entry, 1) == b"aws_big_thing"
    block = field(field(entry, 2), 2)
    last_block = field(block, 3)
    assert field(last_block, 1) == b"rule"
    last = field(block, 2)  # attributes go by their names
    assert field(last, 1) == b"tags" and json.loads(field(last, 2)) == ["map", "string"]


def test_bindings_of_nothing_known_are_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match="ThingConfig: no resource, data source or provider"):
        provider_schema._Bindings("class Thing {}", TYPES).block()
