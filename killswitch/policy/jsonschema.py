"""The JSON schema of a policy, for editors: completion, and most errors while typing.

Made from ``schema.POLICY`` and the field catalogue; the shipped file is checked by a test to be current. To write it anew:

    python3 -m killswitch.policy.jsonschema > killswitch/policies/policy.v1.schema.json
"""

from __future__ import annotations

import json
import re
import sys

from killswitch.policy import fields
from killswitch.policy.catalogue import FIELDS, FieldType, allowed_modifiers
from killswitch.policy.schema import POLICY, json_type

_SCALAR: dict[str, dict[str, object]] = {
    "string": {"type": ["string", "number", "boolean"]},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
}


def policy_schema() -> dict[str, object]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "killswitch policy",
        "definitions": {"group": _group(), "event": _event()},
        **json_type(POLICY, _given),
    }


def policy_schema_text() -> str:
    return json.dumps(policy_schema(), indent=1, ensure_ascii=False) + "\n"


def _given(what: str) -> dict[str, object]:
    if what == "match":
        group = {"$ref": "#/definitions/group"}
        return {"anyOf": [group, {"type": "array", "minItems": 1, "items": group}]}
    return {"$ref": "#/definitions/event"}


def _json_kind(kind: FieldType) -> dict[str, object]:
    if kind.words:
        return {"enum": list(kind.words)}
    return dict(_SCALAR[{"whole": "number", "decimal": "number", "boolean": "boolean"}.get(kind.kind, "string")])


def _group() -> dict[str, object]:
    """Field and modifiers → a value, a list of them, or $list."""
    patterns: dict[str, object] = {}
    for name, kind in FIELDS.items():
        reference = {"type": "string", "pattern": r"^\$"}
        one = {"anyOf": [_json_kind(kind), reference]}
        modifiers = [m for m in allowed_modifiers(name) if m not in ("exists", "cidr")]
        ending = rf"(\|({'|'.join(modifiers)}))*" if modifiers else ""
        about = {"description": fields.FIELDS[name].description}
        patterns[f"^{re.escape(name)}{ending}$"] = {
            **about,
            "anyOf": [one, {"type": "array", "minItems": 1, "items": one}],
        }
        if "exists" in allowed_modifiers(name):
            patterns[rf"^{re.escape(name)}\|exists$"] = {"type": "boolean"}
        if "cidr" in allowed_modifiers(name):
            network = {"type": ["string", "array"], "items": {"type": "string"}}
            patterns[rf"^{re.escape(name)}\|cidr$"] = network
    return {"type": "object", "minProperties": 1, "patternProperties": patterns, "additionalProperties": False}


def _event() -> dict[str, object]:
    properties: dict[str, object] = {}
    for name, kind in FIELDS.items():
        if not kind.derived:
            one = _json_kind(kind)
            about = {"description": fields.FIELDS[name].description}
            properties[name] = {**about, **({"anyOf": [one, {"type": "array", "items": one}]} if kind.many else one)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


if __name__ == "__main__":
    sys.stdout.write(policy_schema_text())
