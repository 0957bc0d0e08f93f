"""What a write asks for can be read back by whoever applies it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from merganser.producers.terms import marks_of
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadSchema, UsageError
from merganser.schemas.headers import BadHeader, Condition, Marks, decode, encode
from merganser.schemas.table import SchemaVersion, Table

_KEY = SchemaVersion("t-key", 1, 2, {"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]})
_TABLE = Table("t", "id", 1, (SchemaVersion("t-value", 1, 1, _KEY.schema),), ("id",), "avro", _KEY)


@pytest.mark.parametrize("version", [0, 17, 2**63 - 1])
def test_a_version_that_an_offset_can_be(version: int) -> None:
    marks = marks_of(_TABLE, if_version=version)
    assert decode(encode(marks)) == marks == Marks(condition=Condition("version", version))


@pytest.mark.parametrize("version", [-1, 2**63, 10**20, True, 1.0, "1"])
def test_a_version_that_no_offset_can_be_is_refused(version: Any) -> None:
    with pytest.raises(UsageError, match="a version is the row's _offset"):
        marks_of(_TABLE, if_version=version)


def test_no_reader_takes_longer_versions() -> None:
    """Such a record would be in quarantine, and its transaction torn."""
    with pytest.raises(BadHeader):
        decode(encode(Marks(condition=Condition("version", 10**20))))


def test_no_row_is_written_by_a_version_that_replicas_refuse() -> None:
    """Another client registered it. Its records would be in quarantine, all of them, and nobody told the writer."""
    other = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "string"}]}
    table = replace(_TABLE, values=(*_TABLE.values, SchemaVersion("t-value", 2, 3, other)))
    encoder = RowEncoder(table)
    with pytest.raises(BadSchema, match="version 2: replicas refuse its records: key column 'id' is BIGINT in keys"):
        encoder.value({"id": "a"})
    assert encoder.key({"id": 1}) == RowEncoder(_TABLE).key({"id": 1})  # deletes are as they were
    assert RowEncoder(_TABLE).value({"id": 1})
