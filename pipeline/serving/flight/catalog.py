"""What Flight SQL's metadata commands answer, as Arrow tables. Pure: from a list of tables, and a command's filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from ..guard.catalog import MAIN, ServedTable

TABLE, SYSTEM_TABLE = "TABLE", "SYSTEM TABLE"

CATALOGS = pa.schema([pa.field("catalog_name", pa.utf8(), False)])
SCHEMAS = pa.schema([("catalog_name", pa.utf8()), pa.field("db_schema_name", pa.utf8(), False)])
TABLE_TYPES = pa.schema([pa.field("table_type", pa.utf8(), False)])
TABLES = pa.schema(
    [
        ("catalog_name", pa.utf8()),
        ("db_schema_name", pa.utf8()),
        pa.field("table_name", pa.utf8(), False),
        pa.field("table_type", pa.utf8(), False),
    ]
)
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), False))
PRIMARY_KEYS = pa.schema(
    [
        ("catalog_name", pa.utf8()),
        ("db_schema_name", pa.utf8()),
        pa.field("table_name", pa.utf8(), False),
        pa.field("column_name", pa.utf8(), False),
        ("key_name", pa.utf8()),
        pa.field("key_sequence", pa.int32(), False),
    ]
)
FOREIGN_KEYS = pa.schema(
    [
        ("pk_catalog_name", pa.utf8()),
        ("pk_db_schema_name", pa.utf8()),
        pa.field("pk_table_name", pa.utf8(), False),
        pa.field("pk_column_name", pa.utf8(), False),
        ("fk_catalog_name", pa.utf8()),
        ("fk_db_schema_name", pa.utf8()),
        pa.field("fk_table_name", pa.utf8(), False),
        pa.field("fk_column_name", pa.utf8(), False),
        pa.field("key_sequence", pa.int32(), False),
        ("fk_key_name", pa.utf8()),
        ("pk_key_name", pa.utf8()),
        pa.field("update_rule", pa.uint8(), False),
        pa.field("delete_rule", pa.uint8(), False),
    ]
)

_INFO_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.utf8()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.field("string_data", pa.utf8()))),
        pa.field(
            "int32_to_int32_list_map",
            pa.map_(pa.int32(), pa.list_(pa.field("$data$", pa.int32()))),
        ),
    ]
)
SQL_INFO = pa.schema([pa.field("info_name", pa.uint32(), False), pa.field("value", _INFO_VALUE)])


def matches(pattern: str | None, name: str) -> bool:
    """Whether *name* is like *pattern*: `%` any text, `_` any character, with a backslash before them themselves."""
    if pattern is None:
        return True
    parts = re.findall(r"\\[%_\\]|.", pattern, re.DOTALL)
    wanted = (".*" if p == "%" else "." if p == "_" else re.escape(p[-1]) for p in parts)
    return re.fullmatch("".join(wanted), name, re.DOTALL | re.IGNORECASE) is not None


def _wanted(command: Any, field: str) -> str | None:
    """The field of a command, None where it was left out."""
    return str(getattr(command, field)) if command.HasField(field) else None


def _of_catalog(command: Any, catalog: str) -> bool:
    wanted = _wanted(command, "catalog")
    return wanted is None or wanted == catalog


def _table(schema: pa.Schema, rows: Iterable[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def catalogs(catalog: str) -> pa.Table:
    return _table(CATALOGS, [(catalog,)])


def schemas(command: Any, catalog: str, tables: Sequence[ServedTable]) -> pa.Table:
    pattern = _wanted(command, "db_schema_filter_pattern")
    names = sorted({MAIN} | {table.schema for table in tables})
    return _table(
        SCHEMAS, [(catalog, name) for name in names if _of_catalog(command, catalog) and matches(pattern, name)]
    )


def table_types() -> pa.Table:
    return _table(TABLE_TYPES, [(SYSTEM_TABLE,), (TABLE,)])


def tables(
    command: Any, catalog: str, found: Sequence[ServedTable], schema_of: Callable[[ServedTable], pa.Schema]
) -> pa.Table:
    """*schema_of* is asked only if the command wants schemas."""
    of_schema, of_name = _wanted(command, "db_schema_filter_pattern"), _wanted(command, "table_name_filter_pattern")
    rows = []
    for table in sorted(found, key=lambda t: (t.schema, t.name)):
        kind = TABLE if table.schema == MAIN else SYSTEM_TABLE
        if not (_of_catalog(command, catalog) and matches(of_schema, table.schema) and matches(of_name, table.name)):
            continue
        if command.table_types and kind not in command.table_types:
            continue
        row: list[Any] = [catalog, table.schema, table.name, kind]
        if command.include_schema:
            row.append(described(schema_of(table), table, catalog).serialize().to_pybytes())
        rows.append(row)
    return _table(TABLES_WITH_SCHEMA if command.include_schema else TABLES, rows)


def described(schema: pa.Schema, table: ServedTable, catalog: str) -> pa.Schema:
    """*schema* with what Flight SQL wants to know of each column."""
    types = dict(table.columns)
    fields = []
    for field in schema:
        said = {
            "ARROW:FLIGHT:SQL:CATALOG_NAME": catalog,
            "ARROW:FLIGHT:SQL:DB_SCHEMA_NAME": table.schema,
            "ARROW:FLIGHT:SQL:TABLE_NAME": table.name,
            "ARROW:FLIGHT:SQL:TYPE_NAME": types.get(field.name, ""),
            "ARROW:FLIGHT:SQL:IS_READ_ONLY": "1",
            "ARROW:FLIGHT:SQL:IS_SEARCHABLE": "1",
        }
        fields.append(field.with_metadata(said | _digits(field.type)))
    return pa.schema(fields)


def with_digits(schema: pa.Schema) -> pa.Schema:
    """*schema* of an answer, in which decimals say how many digits they have: JDBC looks nowhere else for that, and
    Spark takes a column of unknown digits for a DECIMAL(38, 18)."""
    fields = [field.with_metadata(_digits(field.type)) if _digits(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata)


def in_milliseconds(schema: pa.Schema) -> pa.Schema:
    """*schema* of parameters for Java: Arrow's JDBC driver writes a time's milliseconds into a column of whichever
    unit it was told (arrow-java#838), so 2026 in microseconds would be a day in January 1970."""
    return pa.schema([field.with_type(_milliseconds(field.type)) for field in schema])


def _milliseconds(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.timestamp("ms", type_.tz)
    return pa.time32("ms") if pa.types.is_time(type_) else type_


def _digits(type_: pa.DataType) -> dict[str, str]:
    if not pa.types.is_decimal(type_):
        return {}
    return {"ARROW:FLIGHT:SQL:PRECISION": str(type_.precision), "ARROW:FLIGHT:SQL:SCALE": str(type_.scale)}


def primary_keys(command: Any, catalog: str, found: Sequence[ServedTable]) -> pa.Table:
    rows = [
        (catalog, table.schema, table.name, column, None, number)
        for table in found
        if table.name == command.table and _of_catalog(command, catalog)
        if not command.HasField("db_schema") or command.db_schema == table.schema
        for number, column in enumerate(table.key, 1)
    ]
    return _table(PRIMARY_KEYS, rows)


def no_foreign_keys() -> pa.Table:
    return FOREIGN_KEYS.empty_table()


# -- what the server is, and what its SQL can ------------------------------------------------------

_STRING, _BOOL, _BIGINT, _INT32, _LIST = range(5)

#: Functions by kind, for clients that show them; DuckDB has hundreds more.
_NUMERIC = ["abs", "ceil", "exp", "floor", "ln", "log10", "mod", "pi", "pow", "round", "sign", "sqrt", "trunc"]
_TEXT = ["concat", "contains", "length", "lower", "replace", "split", "strip_accents", "substring", "trim", "upper"]
_TIME = ["current_date", "date_diff", "date_part", "date_trunc", "now", "strftime", "strptime", "to_timestamp"]


def sql_info(wanted: Sequence[int], version: str, arrow_version: str, statement_ms: int) -> pa.Table:
    """What *wanted* numbers say, all of them if there are none."""
    infos: dict[int, tuple[int, Any]] = {
        0: (_STRING, "Merganser"),
        1: (_STRING, version),
        2: (_STRING, arrow_version),
        3: (_BOOL, True),  # read only
        4: (_BOOL, True),  # SQL
        5: (_BOOL, False),  # Substrait
        8: (_INT32, 0),  # no transactions
        9: (_BOOL, True),  # cancel
        100: (_INT32, statement_ms),
        101: (_INT32, 0),
        500: (_BOOL, False),
        501: (_BOOL, False),
        502: (_BOOL, False),
        503: (_INT32, 1),  # names do not differ by case
        504: (_STRING, '"'),
        505: (_INT32, 1),
        506: (_BOOL, True),
        507: (_INT32, 3),  # NULLs last
        508: (_LIST, ["QUALIFY", "PIVOT", "UNPIVOT", "SAMPLE", "POSITIONAL", "ASOF", "SEMI", "ANTI"]),
        509: (_LIST, _NUMERIC),
        510: (_LIST, _TEXT),
        511: (_LIST, ["coalesce", "ifnull", "nullif", "typeof"]),
        512: (_LIST, _TIME),
        513: (_STRING, "\\"),
        514: (_STRING, ""),
        515: (_BOOL, True),
        516: (_BOOL, True),
        518: (_BOOL, True),
        519: (_BOOL, False),
        520: (_BOOL, True),
        521: (_BOOL, True),
        522: (_INT32, 3),
        523: (_BOOL, True),
        524: (_BOOL, True),
        525: (_INT32, 3),
        526: (_INT32, 1),
        527: (_BOOL, False),
        528: (_INT32, 2),  # full outer joins
        529: (_STRING, "schema"),
        530: (_STRING, ""),
        531: (_STRING, "catalog"),
        532: (_BOOL, True),
        541: (_BOOL, False),  # select for update
        542: (_BOOL, False),
        563: (_INT32, 0),  # no transactions: their isolation
        564: (_BOOL, False),
        572: (_BOOL, False),
        573: (_BOOL, False),
        574: (_BOOL, False),
        575: (_BOOL, False),
        576: (_BOOL, False),
    }
    names = [name for name in (wanted or sorted(infos)) if name in infos]
    return pa.table([pa.array(names, pa.uint32()), _union([infos[name] for name in names])], schema=SQL_INFO)


def _union(values: Sequence[tuple[int, Any]]) -> pa.Array:
    children: list[list[Any]] = [[] for _ in range(_INFO_VALUE.num_fields)]
    offsets = []
    for kind, value in values:
        offsets.append(len(children[kind]))
        children[kind].append(value)
    fields = [_INFO_VALUE.field(n) for n in range(_INFO_VALUE.num_fields)]
    return pa.UnionArray.from_dense(
        pa.array([kind for kind, _ in values], pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, field.type) for child, field in zip(children, fields, strict=True)],
        [field.name for field in fields],
    )


XDBC_TYPES = pa.schema(
    [
        pa.field("type_name", pa.utf8(), False),
        pa.field("data_type", pa.int32(), False),
        ("column_size", pa.int32()),
        ("literal_prefix", pa.utf8()),
        ("literal_suffix", pa.utf8()),
        ("create_params", pa.list_(pa.field("item", pa.utf8(), False))),
        pa.field("nullable", pa.int32(), False),
        pa.field("case_sensitive", pa.bool_(), False),
        pa.field("searchable", pa.int32(), False),
        ("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), False),
        ("auto_increment", pa.bool_()),
        ("local_type_name", pa.utf8()),
        ("minimum_scale", pa.int32()),
        ("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), False),
        ("datetime_subcode", pa.int32()),
        ("num_prec_radix", pa.int32()),
        ("interval_precision", pa.int32()),
    ]
)

#: Name, ODBC's number, size, quote, signed numbers' radix (0: no number), scale, generic number, subcode.
_XDBC: list[tuple[str, int, int | None, str | None, int, int | None, int, int | None]] = [
    ("BOOLEAN", -7, 1, None, 0, None, -7, None),
    ("TINYINT", -6, 3, None, 10, 0, -6, None),
    ("BIGINT", -5, 19, None, 10, 0, -5, None),
    ("BLOB", -3, None, "'", 0, None, -3, None),
    ("DECIMAL", 3, 38, None, 10, 38, 3, None),
    ("INTEGER", 4, 10, None, 10, 0, 4, None),
    ("SMALLINT", 5, 5, None, 10, 0, 5, None),
    ("FLOAT", 7, 24, None, 2, None, 7, None),
    ("DOUBLE", 8, 53, None, 2, None, 8, None),
    ("VARCHAR", 12, None, "'", 0, None, 12, None),
    ("DATE", 91, 10, "'", 0, None, 9, 1),
    ("TIME", 92, 15, "'", 0, 6, 9, 2),
    ("TIMESTAMP", 93, 26, "'", 0, 6, 9, 3),
    ("TIMESTAMP WITH TIME ZONE", 93, 32, "'", 0, 6, 9, 5),
]


def xdbc_types(command: Any) -> pa.Table:
    wanted = command.data_type if command.HasField("data_type") else None
    rows = [
        (
            *(name, number, size, quote, quote, None, 1, name == "VARCHAR", 3, False if radix else None, False, None),
            *(name, 0 if scale is not None else None, scale, generic, subcode, radix or None, None),
        )
        for name, number, size, quote, radix, scale, generic, subcode in _XDBC
        if wanted is None or wanted == number
    ]
    return _table(XDBC_TYPES, rows)
