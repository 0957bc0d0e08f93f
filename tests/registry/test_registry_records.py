"""A ``_schemas`` topic that a Confluent registry wrote is read as that registry reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from merganser.schemas.errors import IncompatibleSchema, OtherSchema, UnsupportedFormat, UsageError
from merganser.schemas.registry_records import Book, adoption, canonical, check_registration, schema_record
from merganser.schemas.table import SchemaVersion

R1 = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
R2 = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]}


def take(book: Book, key: dict[str, Any], value: dict[str, Any] | None) -> None:
    book.apply(json.dumps(key).encode(), None if value is None else json.dumps(value).encode())


def schema(book: Book, subject: str, version: int, id: int, avro: Any = R1, **more: Any) -> None:
    key = {"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}
    body = {"subject": subject, "version": version, "id": id, "schema": json.dumps(avro), "deleted": False}
    take(book, key, {**body, **more})


def versions(book: Book, subject: str) -> list[tuple[int, int]]:
    return [(v.version, v.id) for v in book.versions(subject)]


def test_a_record_is_written_byte_for_byte_as_confluent_does() -> None:
    key, value = schema_record(SchemaVersion("orders-value", 3, 7, "string"))
    assert key == b'{"keytype":"SCHEMA","subject":"orders-value","version":3,"magic":1}'
    assert value == b'{"subject":"orders-value","version":3,"id":7,"schema":"\\"string\\"","deleted":false}'


def test_a_soft_delete_hides_a_version_and_keeps_its_number_and_id() -> None:
    book = Book()
    schema(book, "s", 1, 1)
    schema(book, "s", 2, 2, R2, deleted=True)
    assert versions(book, "s") == [(1, 1)]
    assert book.next_version("s") == 3
    assert book.id_for(R2) == 2
    assert book.id_for("string") == 3


def test_a_tombstone_removes_a_version_for_good() -> None:
    book = Book()
    schema(book, "s", 1, 1)
    take(book, {"keytype": "SCHEMA", "subject": "s", "version": 1, "magic": 1}, None)
    assert book.versions("s") == [] and book.subjects() == []
    assert book.id_for(R1) == 2, "an id is never given out twice"


def test_delete_subject_and_clear_subject() -> None:
    book = Book()
    schema(book, "s", 1, 1)
    schema(book, "s", 2, 2, R2)
    take(book, {"keytype": "DELETE_SUBJECT", "subject": "s", "magic": 0}, {"subject": "s", "version": 1})
    assert versions(book, "s") == [(2, 2)]
    take(book, {"keytype": "CLEAR_SUBJECT", "subject": "s", "magic": 0}, {"subject": "s"})
    assert versions(book, "s") == [(2, 2)]
    schema(book, "s", 3, 1)
    assert versions(book, "s") == [(2, 2), (3, 1)]


def test_what_says_nothing_of_schemas_is_passed_over() -> None:
    book = Book()
    take(book, {"keytype": "NOOP", "magic": 0}, None)
    take(book, {"keytype": "CONTEXT", "tenant": "t", "context": "c", "magic": 0}, {"tenant": "t", "context": "c"})
    take(book, {"keytype": "SCHEMA"}, {})
    book.apply(None, b"x")
    book.apply(b"\xff", b"x")
    book.apply(b"[]", b"[]")
    assert book.subjects() == []


@pytest.mark.parametrize("kind", ["PROTOBUF", "JSON"])
def test_another_schema_type_is_refused_by_name(kind: str) -> None:
    book = Book()
    book.apply(
        b'{"keytype":"SCHEMA","subject":"pay-value","version":1,"magic":1}',
        json.dumps({"id": 1, "schema": "syntax", "schemaType": kind}).encode(),
    )
    with pytest.raises(UnsupportedFormat, match=f"'pay'.*{kind}"):
        book.versions("pay-value")


def test_references_are_refused_by_name() -> None:
    book = Book()
    schema(book, "s-value", 1, 1, references=[{"name": "x", "subject": "x", "version": 1}])
    with pytest.raises(UnsupportedFormat, match="references"):
        book.versions("s-value")


def test_ids_of_another_context_are_not_ours() -> None:
    book = Book()
    schema(book, ":.other:s", 1, 9)
    assert book.id_for(R1) == 10


def test_the_level_of_the_subject_comes_before_the_global_one() -> None:
    book = Book()
    assert book.level("s") == "BACKWARD"
    take(book, {"keytype": "CONFIG", "subject": None, "magic": 0}, {"compatibilityLevel": "FULL"})
    take(book, {"keytype": "CONFIG", "subject": "s", "magic": 0}, {"compatibilityLevel": "NONE"})
    assert (book.level("s"), book.level("t")) == ("NONE", "FULL")
    take(book, {"keytype": "CONFIG", "subject": "s", "magic": 0}, None)
    assert book.level("s") == "FULL"


@pytest.mark.parametrize(
    ("level", "refused"),
    [("NONE", False), ("BACKWARD", True), ("FORWARD", False), ("FULL", True), ("BACKWARD_TRANSITIVE", True)],
)
def test_a_level_is_honoured(level: str, refused: bool) -> None:
    book = Book()
    schema(book, "s", 1, 1)
    take(book, {"keytype": "CONFIG", "subject": None, "magic": 0}, {"compatibilityLevel": level})
    if refused:
        with pytest.raises(IncompatibleSchema):
            check_registration(book, "s", R2)  # a column without a default
    else:
        check_registration(book, "s", R2)


def test_a_level_that_we_do_not_know_is_refused_by_name() -> None:
    book = Book()
    schema(book, "s", 1, 1)
    take(book, {"keytype": "CONFIG", "subject": None, "magic": 0}, {"compatibilityLevel": "SIDEWAYS"})
    with pytest.raises(IncompatibleSchema, match="SIDEWAYS"):
        check_registration(book, "s", R1)


@pytest.mark.parametrize("mode", ["READONLY", "IMPORT"])
def test_a_registry_that_takes_nothing_is_obeyed(mode: str) -> None:
    book = Book()
    take(book, {"keytype": "MODE", "subject": None, "magic": 0}, {"mode": mode})
    with pytest.raises(UsageError, match=mode):
        check_registration(book, "s", R1)


def test_layout_makes_no_difference_and_the_order_of_fields_does() -> None:
    assert canonical({"type": "string"}) == canonical("string")
    assert canonical(dict(reversed(R1.items()))) == canonical(R1)
    assert canonical({**R2, "fields": R2["fields"][::-1]}) != canonical(R2)


# -- schemas with the ids that they had elsewhere ------------------------------------------------

OLD = [SchemaVersion("s", 1, 7, R1), SchemaVersion("s", 3, 9, R2), SchemaVersion("u", 1, 7, R1)]


def adopt(book: Book, live: bool) -> list[SchemaVersion]:
    missing = adoption(book, OLD, live=live)
    for version in missing:
        book.apply(*schema_record(version, deleted=not live))
    return missing


def test_reserved_ids_are_nobody_elses_and_show_when_they_are_used() -> None:
    book = Book()
    assert adopt(book, live=False) == OLD and adopt(book, live=False) == []
    assert book.subjects() == [] and book.next_version("s") == 4 and book.id_for("string") == 10
    assert adopt(book, live=True) == OLD and adopt(book, live=True) == [] == adopt(book, live=False)
    assert versions(book, "s") == [(1, 7), (3, 9)] and versions(book, "u") == [(1, 7)]


@pytest.mark.parametrize(
    ("taken", "why"),
    [
        (("s", 1, 7, R2), "version 1 is another here"),
        (("s", 1, 8, R1), "version 1 is another here"),
        (("other", 1, 9, R1), "id 9 is that of 'other'"),
        (("other", 1, 9, "string", "deleted"), "id 9 is that of 'other'"),
        (("s", 2, 8, "string"), "it has a version 2"),
        (("s", 4, 8, "string"), "it has a version 4"),
    ],
)
def test_what_the_registry_means_otherwise_is_refused(taken: tuple[Any, ...], why: str) -> None:
    book = Book()
    schema(book, *taken[:4], **({"deleted": True} if len(taken) > 4 else {}))
    with pytest.raises(OtherSchema, match=why):
        adoption(book, OLD, live=True)
