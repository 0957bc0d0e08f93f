"""May this schema follow that one?

Invariants: a version that passes :func:`check_compatible` can read every record of the version before
it, by Avro's own rules and without a change of meaning; one that passes :func:`check_admissible`
shares the table's columns on every replica. Both run before anything is written.

Avro's own package has such a check, with aliases. It is not used because it looks past logical types:
to it, a timestamp may turn from milliseconds to microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .avro import key_fields, row_type
from .errors import BadSchema, IncompatibleSchema
from .layout import Layout, layout
from .rowcheck import bind
from .rules import ATTRIBUTE, rules_of
from .table import AvroSchema, SchemaVersion, Table, key_subject, value_subject
from .types import Field, Type

#: What a reader of the second may meet in records of the first.
_PROMOTIONS = {("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double")}
_PROMOTIONS |= {("float", "double")}


class _Breaks(Exception):
    """Why, and at which field, the new schema cannot read the old one's records."""


def check_compatible(subject: str, old: AvroSchema, new: AvroSchema) -> None:
    """IncompatibleSchema unless readers of *new* can read records of *old* (BACKWARD).

    The schema of a key may not change at all, since records of one key would lie in two partitions.
    BadSchema if *new* is no schema of a table.
    """
    if subject.endswith(key_subject("")):
        _check_same_key(subject, old, new)
        return
    after = row_type(_table_of(subject), new)
    try:
        _check("", row_type(_table_of(subject), old), after)
    except BadSchema as e:
        raise IncompatibleSchema(subject, f"the version before cannot be judged: {e.what()}") from e
    except _Breaks as e:
        raise IncompatibleSchema(subject, str(e)) from None


def check_admissible(table: Table, new: AvroSchema) -> None:
    """IncompatibleSchema if replicas of *table* would refuse the records of *new* as its next version,
    or could not hold its checks against them."""
    subject, key = value_subject(table.name), key_fields(table)
    carried = {f.name: f.type for f in row_type(table.name, new).fields}
    before = {f.name for f in row_type(table.name, table.latest.schema).fields}
    for f in key:
        # A table of others may leave its key out of the values from the start; ours never does later.
        if f.name in before and (f.name not in carried or carried[f.name].nullable):
            raise IncompatibleSchema(subject, f"{f.name}: a key column stays, under its name, and is never null")
    number = table.latest.version + 1
    versions = (*table.values, SchemaVersion(subject, number, 0, new))
    columns = layout(table.name, versions, number, key)
    why = columns.refused.get(number)
    if why is not None:
        raise IncompatibleSchema(subject, why)
    check_same_rules(table, new)
    _check_judged(replace(table, values=versions), columns)


def check_same_rules(table: Table, new: AvroSchema) -> None:
    """IncompatibleSchema if *new* asks for other rules than the first version, which decides for good.
    One that says nothing inherits them."""
    said = rules_of(table.name, new)
    if said is not None and said != table.rules:
        why = f"the first version has {table.rules}, this one {said}: leave the attribute {ATTRIBUTE!r} out"
        hint = "checks and conditions are fixed when a table is made; a table with others is a new one"
        raise IncompatibleSchema(value_subject(table.name), why, hint)


def _check_judged(table: Table, columns: Layout) -> None:
    """IncompatibleSchema unless every check of *table* can judge the rows of its latest version."""
    subject, hint = value_subject(table.name), "a column that a check names stays, with a type that it can compare"
    try:
        checks = bind(table, columns, table.latest.version)
    except BadSchema as e:
        raise IncompatibleSchema(subject, f"{e.where}: {e.why}", hint) from e
    for check in checks:
        for name, written in check.fields.items():
            if written is None:
                raise IncompatibleSchema(subject, f'{name}: dropped, but the check "{check.text}" names it', hint)


def _table_of(subject: str) -> str:
    return subject.removesuffix(value_subject("")).removesuffix(key_subject(""))


# -- keys ------------------------------------------------------------------------------------


def _check_same_key(subject: str, old: AvroSchema, new: AvroSchema) -> None:
    before, after = _key_columns(subject, old), _key_columns(subject, new)
    if before != after:
        raise IncompatibleSchema(subject, "key columns never change: their rows would move between partitions")


def _key_columns(subject: str, schema: AvroSchema) -> Any:
    """What of a key's schema decides its bytes and its columns."""
    loaded: Any = schema
    if isinstance(schema, str):
        try:
            loaded = json.loads(schema)
        except ValueError:
            loaded = schema
    if isinstance(loaded, str):
        return {"type": loaded}
    if isinstance(loaded, Mapping) and loaded.get("type") == "record":
        return [(f.name, _unnamed(f.type)) for f in row_type(_table_of(subject), loaded).fields]
    if isinstance(loaded, Mapping):
        return {name: value for name, value in loaded.items() if name == "type" or name.startswith("merganser")}
    raise BadSchema(_table_of(subject), "", "a key is a record, a string, an int or a long")


def _unnamed(type_: Type) -> tuple[object, ...]:
    return type_.kind, type_.null_branch, type_.size, type_.precision, type_.scale, type_.symbols


# -- values ----------------------------------------------------------------------------------


def _check(where: str, old: Type, new: Type) -> None:
    if old.nullable and not new.nullable:
        raise _broken(where, "earlier records may have null there")
    if old.kind != new.kind:
        if (old.kind, new.kind) not in _PROMOTIONS:
            raise _broken(where, f"{old.kind} cannot become {new.kind}")
        return
    if old.size != new.size:
        raise _broken(where, f"{_size(old)} cannot become {_size(new)}")
    if old.kind in ("record", "enum", "fixed"):
        _check_name(where, old, new)
    match new.kind:
        case "record":
            _check_fields(where, old.fields, new.fields)
        case "array" | "map":
            _check(f"{where}[]", old.element, new.element)
        case "enum":
            _check_symbols(where, old, new)
        case "decimal":
            _check_decimal(where, old, new)


def _check_fields(where: str, old: tuple[Field, ...], new: tuple[Field, ...]) -> None:
    before = {f.name: f for f in old}
    for f in new:
        place = f"{where}.{f.name}" if where else f.name
        source = next((before[n] for n in (f.name, *f.aliases) if n in before), None)
        if source is not None:
            _check(place, source.type, f.type)
        elif not f.has_default:
            raise _broken(place, "a new field needs a default, since earlier records lack it")


def _check_name(where: str, old: Type, new: Type) -> None:
    if _simple(old.name) != _simple(new.name) and not {old.name, _simple(old.name)} & set(new.aliases):
        what = f"the {new.kind} {old.name!r} cannot become {new.name!r} without an alias"
        raise _broken(where, what)


def _simple(name: str) -> str:
    return name.rpartition(".")[2]


def _check_symbols(where: str, old: Type, new: Type) -> None:
    lost = [symbol for symbol in old.symbols if symbol not in new.symbols]
    if lost and new.enum_default is None:
        raise _broken(where, f"earlier records may have {', '.join(lost)}, and the enum has no default")


def _check_decimal(where: str, old: Type, new: Type) -> None:
    if old.scale != new.scale:
        raise _broken(where, f"the scale cannot change from {old.scale} to {new.scale}")
    if old.precision > new.precision:
        raise _broken(where, f"earlier records may have {old.precision} digits, more than {new.precision}")


def _size(type_: Type) -> str:
    return f"{type_.kind} of " + ("any length" if type_.size is None else f"{type_.size} bytes")


def _broken(where: str, why: str) -> _Breaks:
    return _Breaks(f"{where}: {why}" if where else why)
