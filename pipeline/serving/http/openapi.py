"""The description of the HTTP door in OpenAPI's terms."""

from __future__ import annotations

from typing import Any

from .accept import MEDIA_TYPES

_DESCRIPTION = """SQL on a live replica of a Kafka log, and how the node is.

Every answer says at which position of the log it was read. A request says how fresh it has to be: by a level, by a
token (the answer includes that write), or by an age.

An error is one JSON object: error, hint, code and fields."""

_LEVELS = ["eventual", "session", "bounded", "strong"]


def document() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "openapi": "3.1.0",
        "info": {"title": "Merganser HTTP door", "version": version("merganser"), "description": _DESCRIPTION},
        "paths": _paths(),
        "components": {
            "parameters": _PARAMETERS,
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"password": []}, {"token": []}, {}],
    }


def _paths() -> dict[str, Any]:
    fresh = [{"$ref": f"#/components/parameters/{name}"} for name in ("Level", "After", "MaxStaleness", "Timeout")]
    return {
        "/query": {
            "get": {
                "summary": "One SELECT or EXPLAIN",
                "parameters": [
                    _param("sql", "query", "The statement, in DuckDB's dialect.", required=True),
                    _param("params", "query", "Its parameters: a JSON array, or an object of names."),
                    _param("format", "query", "In place of Accept.", enum=list(MEDIA_TYPES)),
                    *fresh,
                ],
                "responses": _answers(),
            },
            "post": {
                "summary": "One SELECT or EXPLAIN, of any length",
                "description": "The body is the SQL, or a JSON object of sql, params and what the headers say.",
                "parameters": [_param("format", "query", "In place of Accept.", enum=list(MEDIA_TYPES)), *fresh],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Question"}},
                        "application/sql": {"schema": {"type": "string"}},
                        "text/plain": {"schema": {"type": "string"}},
                    },
                },
                "responses": _answers(),
            },
        },
        "/tables": _get("Every table that the user may read, with its columns and their SQL types"),
        "/tables/{table}": _get("One table", _param("table", "path", "Its name.", required=True), missing=True),
        "/position": _get("How far the replica is"),
        "/status": _get("Lag, stopped tables, open transactions, archive and backups"),
        "/live": _get(
            "What the node's page shows: status, figures of each table, samples of the last minutes",
            _param("since", "query", "Samples after this moment only: the last at_s that was given."),
            _param("table", "query", "With the place in each of this table's partitions."),
            missing=True,
            description="Cheap enough to be asked each second: the store is read once a second, whoever asks.",
        ),
        "/metrics": _get("For Prometheus", type_="text/plain"),
        "/backups": {
            "post": {
                "summary": "Make a backup (operators)",
                "description": "Begins it, and gives a job to ask after. One at a time.",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BackupRequest"}}}
                },
                "responses": {"202": _json("The job that was begun"), **_errors("400", "401", "403", "429", "503")},
            }
        },
        "/backups/{job}": _get(
            "What became of a backup (operators)", _param("job", "path", "As POST /backups gave it.", required=True),
            missing=True,
        ),
        "/snapshot": _get(
            "All tables at one position (operators)", missing=False, type_=MEDIA_TYPES["arrow"][0],
            description="Arrow streams, a table each. `merganser snapshot-file` makes a DuckDB file of them.",
        ),
        "/digests": {
            "post": {
                "summary": "The digest of every table, at one position (operators)",
                "description": "Waits until the replica has applied what after says.",
                "requestBody": {"required": True, "content": {"application/json": {}}},
                "responses": {"200": _json("Position and digests of each table"),
                              **_errors("400", "401", "403", "421", "429", "503", "504")},
            }
        },
        "/readyz": _check("Whether the replica has caught up once, and may be asked"),
        "/livez": _check("Whether the apply loop runs"),
        "/openapi.json": {"get": {"summary": "This document", "responses": {"200": _json("OpenAPI 3.1")}}},
        "/docs": {"get": {"summary": "This document, as a page", "responses": {"200": {"description": "HTML"}}}},
    }  # fmt: skip


def _param(name: str, where: str, what: str, required: bool = False, **schema: Any) -> dict[str, Any]:
    given = {"name": name, "in": where, "description": what, "schema": {"type": "string", **schema}}
    return {**given, "required": True} if required else given


def _get(
    summary: str, *parameters: dict[str, Any], missing: bool = False, type_: str = "application/json",
    description: str = "",
) -> dict[str, Any]:  # fmt: skip
    errors = _errors("401", "403", "404", "429") if missing else _errors("401", "403", "429")
    operation: dict[str, Any] = {"summary": summary}
    if description:
        operation["description"] = description
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": {**operation, "responses": {"200": {"description": "OK", "content": {type_: {}}}, **errors}}}


def _check(summary: str) -> dict[str, Any]:
    return {
        "get": {"summary": summary, "security": [], "responses": {"200": _json("Yes"), "503": _json("No, and why")}}
    }


def _json(what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {}}}


def _answers() -> dict[str, Any]:
    ok = {
        "description": "The rows",
        "headers": {
            "Merganser-Position": {"description": "Where they were read.", "schema": {"type": "string"}},
            "Merganser-Applied": {"description": "Which tokens they include.", "schema": {"type": "string"}},
        },
        "content": {types[0]: {} for types in MEDIA_TYPES.values()},
    }
    statuses = ("400", "401", "403", "404", "406", "408", "413", "415", "421", "429", "503", "504")
    return {"200": ok, **_errors(*statuses)}


_MEANINGS = {
    "400": "Not a query: SQL, parameter, level or token that cannot be followed",
    "401": "Log in first",
    "403": "Not for this user, or SQL that no door runs",
    "404": "There is no such thing",
    "406": "None of the accepted formats is offered",
    "408": "The body did not come in time",
    "413": "A body, an answer, or the memory that a query takes, is too large",
    "415": "A body of a type that is not read",
    "421": "This replica does not hold what the token is of, or does not answer to that name: ask another",
    "429": "Too many failed log-ins: Retry-After says when",
    "503": "Busy, stopping, or changing a schema: try again, or another node",
    "504": "Not fresh enough in time, or the query took too long",
}


def _errors(*statuses: str) -> dict[str, Any]:
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": schema} for status in statuses}


_PARAMETERS = {
    "Level": _param("Merganser-Level", "header", "How fresh the answer is; eventual unless said.", enum=_LEVELS),
    "After": _param("Merganser-After", "header", "A token: the answer includes that write."),
    "MaxStaleness": _param(
        "Merganser-Max-Staleness", "header", "Seconds (level bounded): nothing acknowledged longer ago is missing."
    ),
    "Timeout": _param("Merganser-Timeout", "header", "Seconds that all of it may take; 30 unless said."),
}

_SCHEMAS = {
    "Problem": {
        "type": "object",
        "required": ["error", "hint", "code", "fields"],
        "properties": {
            "error": {"type": "string", "description": "One line: what failed."},
            "hint": {"type": "string", "description": "What to do."},
            "code": {"type": "string", "description": "The error's name in merganser.errors."},
            "fields": {"type": "object", "description": "Its facts."},
        },
    },
    "Question": {
        "type": "object",
        "required": ["sql"],
        "additionalProperties": False,
        "properties": {
            "sql": {"type": "string"},
            "params": {"oneOf": [{"type": "array"}, {"type": "object"}, {"type": "null"}]},
            "level": {"enum": _LEVELS},
            "after": {"type": ["string", "null"]},
            "max_staleness": {"type": ["number", "null"]},
            "timeout": {"type": "number"},
        },
    },
    "BackupRequest": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "type": {"enum": ["full", "incr"]},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
