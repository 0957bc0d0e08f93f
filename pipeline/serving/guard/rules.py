"""What SQL may name. Pure: decided from its :class:`Shape`, and from what its user may read.

Two lists, and a reason for each kind. Functions that give tables are refused unless they are listed: DuckDB's
read files, run other SQL, change the instance, or tell of it. Plain functions are allowed unless they are listed:
there are a thousand, and those that reach beyond their arguments are known (``tests/serving/test_rules.py`` fails
when DuckDB has a new one that is volatile).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from ....schemas.errors import BadQuery, NotAllowed
from .ask import ServingLimits
from .catalog import MAIN, SYSTEM
from .growth import Growth
from .shape import Shape, TableName

#: These read nothing but their arguments.
_PURE_TABLES = frozenset({"range", "generate_series", "unnest", "repeat", "json_each", "json_tree"})

#: These tell what tables there are, and nothing of the machine: for who may read all of them.
_CATALOG_TABLES = frozenset(
    {
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_schemas",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "pg_timezone_names",
        "pragma_table_info",
        "pragma_version",
    }
)
#: Views of DuckDB's, found as if they were tables of ours, that tell of the machine.
HIDDEN_MAIN = frozenset(
    {"duckdb_databases", "duckdb_logs", "pragma_database_list", "sqlite_temp_master", "sqlite_temp_schema"}
)
_CATALOG_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_HIDDEN_VIEWS = frozenset({"pg_settings", "pg_prepared_statements"})
_CATALOG_SHOWS = frozenset({"tables", "schemas", "databases"})

#: These reach beyond their arguments: settings and paths, sequences, logs, other SQL, the planner.
_REFUSED = frozenset(
    {
        "current_query",
        "current_setting",
        "currval",
        "getenv",
        "getvariable",
        "json_execute_serialized_sql",
        "json_serialize_plan",
        "nextval",
        "pg_sleep",
        "query",
        "query_table",
        "set_config",
        "setseed",
        "setval",
        "stats",
        "vector_type",
        "combine",
        "finalize",
        "to_aggregate_state",
        "invoke",
        "sleep_ms",
        "write_log",
    }
)
#: These DuckDB hands to Arrow as something else: a number that is negative, a time without its zone, bytes of its own.
#: (pinned in tests/engine)
_CHANGED = re.compile(r"\b(?:UHUGEINT|BIGNUM|BIT|VARIANT|TIME WITH TIME ZONE)\b")
#: In the text of a type: names of fields, and symbols.
_IN_QUOTES = re.compile(r'"(?:[^"]|"")*"|\'(?:[^\']|\'\')*\'')

#: A query that comes to more takes seconds to be planned, which cannot be interrupted.
_MOST_QUERIES = 300
_MOST_TABLES, _MOST_ALIASED, _MOST_JOINS = 300, 2_000, 64
#: Each is made a join, and what they cost together goes by their square, or worse.
_MOST_SUBQUERIES, _MOST_GROUPINGS = 24, 64

#: These take the product of two lengths, in one step that cannot be interrupted. They are served beside functions that
#: do not make values longer.
_QUADRATIC = frozenset(
    {"damerau_levenshtein", "editdist3", "jaro_similarity", "jaro_winkler_similarity", "levenshtein"}
)
_SHORT = frozenset(
    {
        "+", "-", "*", "/", "//", "%", "~~", "!~~", "~~*", "!~~*", "like_escape",
        "abs", "ceil", "floor", "round", "mod", "coalesce", "greatest", "least",
        "avg", "sum", "count", "count_star", "min", "max", "first", "any_value", "arg_min", "arg_max", "min_by",
        "max_by", "row_number", "rank", "dense_rank",
        "length", "len", "lower", "upper", "lcase", "ucase", "trim", "ltrim", "rtrim", "left", "right", "substr",
        "substring", "strip_accents",
    }
)  # fmt: skip


def allow(shape: Shape, limits: ServingLimits, everything: bool) -> None:
    """NotAllowed if a query of *shape* may not run at all, for who may read *everything* or for who may not."""
    tables = _PURE_TABLES | (_CATALOG_TABLES if everything else frozenset())
    for name in sorted(shape.table_functions - tables):
        known = name in _CATALOG_TABLES
        why = "for users who may read all tables only" if known else "not served: it reaches beyond the tables"
        raise NotAllowed(f"the table function {name} is {why}")
    for name in sorted(shape.functions & _REFUSED):
        raise NotAllowed(f"the function {name} is not served: it reaches beyond its arguments")
    for name in sorted(shape.shows - (_CATALOG_SHOWS if everything else frozenset())):
        raise NotAllowed(f"SHOW {name.upper()} is not served here")
    if shape.repeats > limits.value_bytes or shape.longest > limits.value_bytes:
        raise NotAllowed(f"the query makes values longer than {limits.value_bytes:,} bytes or elements")
    if shape.queries > _MOST_QUERIES:
        raise NotAllowed(f"the SQL has more than {_MOST_QUERIES} SELECTs: to plan them could not be interrupted")
    if shape.lambdas > 1:
        raise NotAllowed("a lambda inside of a lambda is not served: it could not be interrupted")
    if shape.functions & _QUADRATIC and (shape.recursive or shape.functions - _QUADRATIC - _SHORT):
        name, other = min(shape.functions & _QUADRATIC), min(shape.functions - _QUADRATIC - _SHORT, default="recursion")
        raise NotAllowed(f"{name} is not served beside {other}: it could not be interrupted")


def bounded(growth: Growth) -> None:
    """NotAllowed if a query grows to more than can be planned in no time."""
    if growth.tables > _MOST_TABLES:
        raise NotAllowed(f"with its stars and WITHs the SQL comes to more than {_MOST_TABLES} tables")
    if growth.aliases > _MOST_ALIASED:
        raise NotAllowed(f"aliases of aliases come to more than {_MOST_ALIASED:,} expressions")
    if growth.joins > _MOST_JOINS:
        raise NotAllowed(f"the SQL has more than {_MOST_JOINS} joins")
    if growth.subqueries > _MOST_SUBQUERIES:
        raise NotAllowed(
            f"the SQL comes to more than {_MOST_SUBQUERIES} subqueries in expressions, or half as many that are joined",
            hint="join tables in their place, make some of them a WITH, or ask several times",
        )
    if growth.groupings > _MOST_GROUPINGS:
        raise NotAllowed(f"the SQL groups by more than {_MOST_GROUPINGS} sets (CUBE, ROLLUP, GROUPING SETS)")


def sendable(columns: Iterable[tuple[str, str]]) -> None:
    """BadQuery if one of *columns*, names and SQL types, has values that are others in Arrow, which every answer goes
    through: there a time has no zone, and whole numbers end at 127 bits and a sign."""
    for name, type_ in columns:
        lost = _CHANGED.search(_IN_QUOTES.sub("", type_))
        if lost is not None:
            why = f"column {name[:100]!r} is of type {lost[0]}, which is no type of answers"
            raise BadQuery(why, hint="CAST it AS VARCHAR, which keeps all of it")


def grant(shape: Shape, catalog: str, granted: Collection[str] | None, found: Callable[[], Collection[str]]) -> None:
    """NotAllowed unless each table that *shape* names may be read by who has *granted* (None: all).

    *found* gives what names without a schema find in the state that is read, views of DuckDB's too. A name that a
    query has defined itself (WITH) is no table's, unless there is a table or view of that name: then it is not looked
    into which of them is meant where.
    """
    mine = None if granted is None else {name.casefold() for name in granted}
    ctes = {name.casefold() for name in shape.ctes}
    own = set()
    for table in sorted(shape.tables):
        schema, name = _place(table, catalog.casefold())
        if mine is None:
            allowed = _known(schema, name)
        else:
            allowed = schema in (MAIN, SYSTEM) and (name if schema == MAIN else f"{schema}.{name}") in mine
        if not allowed and not table.catalog and not table.schema and name in ctes:
            own.add(name)
        elif not allowed:
            raise NotAllowed(f"there is no table {_shown(table)} that you may read")
    if own and (clash := sorted(own & {name.casefold() for name in found()})):
        raise NotAllowed(f"there is no table {clash[0][:200]} that you may read")


def _place(table: TableName, catalog: str) -> tuple[str, str]:
    """Schema and name that DuckDB finds for *table* in the database *catalog*."""
    first, schema, name = (part.casefold() for part in table)
    if not first and schema == catalog:
        schema = MAIN  # DuckDB takes one qualifier for a schema or a database
    if first and first != catalog:
        return f"{first}.{schema}", name  # not ours
    return schema or MAIN, name


def _known(schema: str, name: str) -> bool:
    """Whether who may read everything may read this: our tables, and those views of DuckDB's that tell what tables
    there are, and no more."""
    if schema in _CATALOG_SCHEMAS:
        return name not in _HIDDEN_VIEWS
    return schema == SYSTEM or (schema == MAIN and name not in HIDDEN_MAIN | _HIDDEN_VIEWS)  # found without pg_catalog


def _shown(table: TableName) -> str:
    return ".".join(part for part in table if part)[:200]
