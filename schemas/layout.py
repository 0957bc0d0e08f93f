"""The columns of a table, from the versions of its schema.

Invariants: a layout is a pure function of the registry's versions in their order, never of what
records arrived when; a column once there stays there, in its place, and never narrows; the layout up
to a later version has the steps of the one up to an earlier version as its beginning.

So two replicas that know the same versions have the same columns, and a store that went from layout
to layout has what a new store would create. Rules, version by version:

1. A field continues the column of its name, also one that an intermediate version had dropped.
2. Otherwise, by its ``aliases`` in order, it continues the column that has that name or else had it,
   unless another field of the version continues it already: the column takes the field's name.
3. Otherwise it is a new column, after the others.
4. Types join (:func:`join`). If one does not, or a key column is not of its key's type, the whole version is
   refused: it changes nothing, and its records cannot be rows.

There are no NOT NULLs and no defaults: a row holds what its record carried, and NULL for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .avro import comparable, row_type
from .errors import BadSchema
from .table import SchemaVersion
from .types import MAX_PRECISION, Field, Kind, Type, quote

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column. Its place in the layout is its identity."""

    name: str
    type: Type
    #: Names it had, the latest last.
    former: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        return self.type.sql


@dataclass(frozen=True)
class Add:
    column: str
    type: str

    def sql(self, table: str) -> str:
        return f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quote(self.column)} {self.type}"


@dataclass(frozen=True)
class Rename:
    column: str
    to: str

    def sql(self, table: str) -> str:
        return f"ALTER TABLE {table} RENAME COLUMN {quote(self.column)} TO {quote(self.to)}"


@dataclass(frozen=True)
class Retype:
    column: str
    type: str

    def sql(self, table: str) -> str:
        return f"ALTER TABLE {table} ALTER COLUMN {quote(self.column)} TYPE {self.type}"


#: One ALTER TABLE; ``sql`` takes the table's name as it stands in SQL, quoted and with its schema.
Step = Add | Rename | Retype


@dataclass(frozen=True)
class Layout:
    """The columns of a table, and where the fields of each version go.

    *places* gives, by version, the column (by its place in *columns*) of each field; *refused* gives,
    by version, why its records cannot be rows; *steps* is the way here from a table of no columns.
    """

    columns: tuple[Column, ...] = ()
    places: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class _Clash(Exception):
    """Why a version cannot share the columns of those before it."""


def layout(table_name: str, versions: Sequence[SchemaVersion], upto: int, key: Sequence[Field] = ()) -> Layout:
    """The layout of *table_name* at version *upto* of its value schema.

    *key* has the fields of its key (``avro.key_fields``): they are columns under their own names in
    every version, also where values do not carry them.
    """
    result = Layout()
    for version in sorted(versions, key=lambda v: v.version):
        if version.version <= upto:
            result = _extended(result, table_name, version, key)
    return result


def migrate(old: Layout, new: Layout) -> list[Step]:
    """What leads from *old* to *new*, a later layout of the same table.

    To run in one transaction: DuckDB undoes an ALTER with it, so a plan is done whole or not at all.
    """
    if new.steps[: len(old.steps)] != old.steps:
        raise ValueError("not a later layout of the same table")
    return list(new.steps[len(old.steps) :])


def conform(rows: pa.Table, layout: Layout, version: int) -> pa.Table:
    """*rows*, decoded by *version*, in the columns and types of *layout*; NULL for what they lack."""
    # Here, not above: a service that only writes has no pyarrow, and checks layouts too.
    import pyarrow as pa

    from .arrow import arrow_type

    fields = {place: name for name, place in layout.places[version].items()}
    columns: list[pa.ChunkedArray | pa.Array] = []
    for place, column in enumerate(layout.columns):
        target = arrow_type(column.type)
        if fields.get(place) in rows.column_names:
            # A long above 2**53 rounds as a double, in Arrow as in DuckDB: only "safe" would refuse.
            columns.append(rows.column(fields[place]).cast(target, safe=False))
        else:
            columns.append(pa.nulls(rows.num_rows, target))
    return pa.table(columns, names=[column.name for column in layout.columns])


def join(a: Type, b: Type) -> Type:
    """The column type that holds every value of both; ValueError if there is none.

    The same in any order: int < long < double, float < double, and int or long with float is double
    (through FLOAT, digits would depend on the order). Decimals keep all digits on both sides of the
    point, to 38. Arrays and maps join by element, records by field name. No other two types join.
    """
    a, b = _kept(a), _kept(b)
    if a == b:
        return a
    kinds = {a.kind, b.kind}
    if kinds == {"int", "long"}:
        return Type("long")
    if kinds < {"int", "long", "float", "double"}:
        return Type("double")
    if kinds == {"decimal"}:
        return _join_decimals(a, b)
    if kinds in ({"array"}, {"map"}):
        return Type(a.kind, item=join(a.element, b.element))
    if kinds == {"record"}:
        return _join_records(a, b)
    raise ValueError(f"{a.sql} and {b.sql} have no common type")


# -- one version more ------------------------------------------------------------------------


def _extended(before: Layout, table_name: str, version: SchemaVersion, key: Sequence[Field]) -> Layout:
    try:
        row = row_type(table_name, version.schema).fields
        carried = {f.name: f.type for f in row}
        _check_key(carried, key)
        fields = (*row, *(f for f in key if f.name not in carried))
        places = _places(before.columns, fields)
        columns, steps = _columns(before.columns, fields, places)
    except (BadSchema, _Clash) as e:
        why = e.what() if isinstance(e, BadSchema) else str(e)
        return replace(before, refused={**before.refused, version.version: why})
    named = {f.name: place for f, place in zip(fields, places, strict=True)}
    return Layout(columns, {**before.places, version.version: named}, before.refused, before.steps + steps)


def _check_key(carried: Mapping[str, Type], key: Sequence[Field]) -> None:
    for f in key:
        if f.name in carried and not comparable(carried[f.name], f.type):
            raise _Clash(f"key column {f.name!r} is {f.type.sql} in keys, {carried[f.name].sql} in values")


def _places(columns: tuple[Column, ...], fields: tuple[Field, ...]) -> list[int]:
    """The place of each field's column: rules 1 to 3."""
    by_name = {column.name: i for i, column in enumerate(columns)}
    places = {f.name: by_name[f.name] for f in fields if f.name in by_name}
    taken = set(places.values())
    end = len(columns)
    for f in fields:
        if f.name in places:
            continue
        found = [i for i in _by_alias(columns, f.aliases) if i not in taken]
        places[f.name] = found[0] if found else end
        end += not found
        taken.add(places[f.name])
    return [places[f.name] for f in fields]


def _by_alias(columns: tuple[Column, ...], aliases: tuple[str, ...]) -> list[int]:
    found = []
    for alias in aliases:
        found += [i for i, column in enumerate(columns) if column.name == alias]
        found += [i for i, column in enumerate(columns) if alias in column.former]
    return found


def _columns(
    before: tuple[Column, ...], fields: tuple[Field, ...], places: list[int]
) -> tuple[tuple[Column, ...], tuple[Step, ...]]:
    columns = list(before)
    steps: list[Step] = []
    for f, place in sorted(zip(fields, places, strict=True), key=lambda pair: pair[1]):
        if place == len(columns):
            columns.append(Column(f.name, _kept(f.type)))
            steps.append(Add(f.name, columns[place].sql))
            continue
        old = columns[place]
        columns[place] = _continued(old, f)
        if f.name != old.name:
            steps.append(Rename(old.name, f.name))
        if columns[place].sql != old.sql:
            steps.append(Retype(f.name, columns[place].sql))
    _check_names(columns)
    return tuple(columns), tuple(steps)


def _continued(column: Column, f: Field) -> Column:
    try:
        type_ = join(column.type, f.type)
    except ValueError as e:
        raise _Clash(f"field {f.name!r}: {e}") from None
    former = column.former if f.name == column.name else (*column.former, column.name)
    return replace(column, name=f.name, type=type_, former=former)


def _check_names(columns: list[Column]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise _Clash(f"columns {other!r} and {column.name!r} differ by case only")


# -- types -----------------------------------------------------------------------------------

_KEPT_AS: dict[str, Kind] = {
    "enum": "string",
    "fixed": "bytes",
    "time-millis": "time-micros",
    "timestamp-millis": "timestamp-micros",
    "local-timestamp-millis": "local-timestamp-micros",
}


def _kept(type_: Type) -> Type:
    """The type as a column has it: what differs only on the wire becomes one."""
    match type_.kind:
        case "array" | "map":
            return Type(type_.kind, item=_kept(type_.element))
        case "record":
            return Type("record", fields=tuple(Field(f.name, _kept(f.type)) for f in type_.fields))
        case "decimal":
            return Type("decimal", precision=type_.precision, scale=type_.scale)
        case "uuid":
            return Type("uuid", size=type_.size)
    return Type(_KEPT_AS.get(type_.kind, type_.kind))


def _join_decimals(a: Type, b: Type) -> Type:
    scale = max(a.scale, b.scale)
    precision = max(a.precision - a.scale, b.precision - b.scale) + scale
    if precision > MAX_PRECISION:
        raise ValueError(f"{a.sql} and {b.sql} together need {precision} digits, more than {MAX_PRECISION}")
    return Type("decimal", precision=precision, scale=scale)


def _join_records(a: Type, b: Type) -> Type:
    """All fields of both, those of *a* first; aliases inside a column are not followed."""
    fields = {f.name.lower(): f for f in a.fields}
    for f in b.fields:
        known = fields.get(f.name.lower())
        if known is None:
            fields[f.name.lower()] = f
        elif known.name != f.name:
            raise ValueError(f"its fields {known.name!r} and {f.name!r} differ by case only")
        else:
            fields[f.name.lower()] = Field(f.name, join(known.type, f.type))
    return Type("record", fields=tuple(fields.values()))
