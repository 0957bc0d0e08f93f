"""The rules of a table: its row checks, and which conditional writes it takes.

They travel as one attribute of the value schema's record, ``"merganser": {"checks": ["qty > 0"],
"conditions": "any"}``: Avro readers pass over attributes that they do not know.

Invariant: the first version of a table's value schema decides, for good. Records below and above any
later version are judged alike, and a replica that starts today judges as one that started first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import BadSchema

if TYPE_CHECKING:
    from .table import AvroSchema

#: Which transactions of a table may carry conditions: over any partitions, within one, or none.
Conditions = Literal["any", "partition", "none"]

ATTRIBUTE = "merganser"

_HINT = 'it reads like {"checks": ["qty > 0"], "conditions": "any"}; docs/schemas.md has more under "Row checks"'


@dataclass(frozen=True)
class Rules:
    """What a table asks of the rows and of the writes it takes, as it was declared."""

    checks: tuple[str, ...] = ()
    conditions: Conditions = "any"

    def __str__(self) -> str:
        return f"checks {shown(self.checks)} and conditions={self.conditions}"


def shown(checks: Sequence[str]) -> str:
    """*checks* as a message has them."""
    return ", ".join(f'"{check}"' for check in checks) or "none"


def rules_of(table: str, schema: AvroSchema) -> Rules | None:
    """What the attribute of *schema* says; None if it has none, BadSchema if it says something else."""
    loaded = _loaded(schema)
    if ATTRIBUTE not in loaded:
        return None
    said = loaded[ATTRIBUTE]
    if not isinstance(said, Mapping):
        raise BadSchema(table, ATTRIBUTE, f"not an object but {said!r}", _HINT)
    for name in said:
        if name not in ("checks", "conditions"):
            raise BadSchema(table, ATTRIBUTE, f"{name!r} is unknown: written by a newer Merganser, or misspelt", _HINT)
    checks, conditions = said.get("checks", []), said.get("conditions", "any")
    if not isinstance(checks, (list, tuple)) or not all(isinstance(check, str) for check in checks):
        raise BadSchema(table, f"{ATTRIBUTE}.checks", f"not a list of texts but {checks!r}", _HINT)
    return Rules(tuple(checks), checked_conditions(table, conditions))


def checked_conditions(table: str, said: object) -> Conditions:
    """*said*, if it is one of the three words; else BadSchema."""
    for word in get_args(Conditions):
        if said == word:
            return word  # type: ignore[no-any-return]
    raise BadSchema(table, f"{ATTRIBUTE}.conditions", f"not any, partition or none but {said!r}", _HINT)


def with_rules(schema: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """*schema* with the attribute, unless it would only say what holds without it."""
    if rules == Rules():
        return dict(schema)
    return {**schema, ATTRIBUTE: {"checks": list(rules.checks), "conditions": rules.conditions}}


def without_rules(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != ATTRIBUTE}


def _loaded(schema: AvroSchema) -> Mapping[str, Any]:
    loaded: Any = schema
    if isinstance(schema, str):
        try:
            loaded = json.loads(schema)
        except ValueError:
            return {}  # a primitive's bare name: `row_type` refuses it with the reason
    return loaded if isinstance(loaded, Mapping) else {}
