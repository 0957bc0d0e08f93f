"""The row of a record in quarantine, as a repair gets it and as `--json` shows it, can be given back."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given

from merganser.consumers.batch import Poison
from merganser.pipeline.quarantine.candidates import Candidates
from merganser.schemas.avro import row_type
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.jsonrows import JsonRows, loads, row_to_json
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.avro_strategies import patient, schemas_and_rows


@given(schemas_and_rows())
@patient
def test_a_row_that_is_given_back_as_it_was_is_the_same_row(drawn: tuple[Any, list[dict[str, Any]]]) -> None:
    """Of every type: a uuid that is bytes, a map within an array, nanoseconds."""
    schema, rows = drawn
    table = Table("t", "id", 1, (SchemaVersion("t-value", 1, 7, schema),))
    encoder, reader = RowEncoder(table), Decoder(table.latest, "t")
    fields = row_type("t", schema).fields
    seen: list[dict[str, Any]] = []

    def repair(record: dict[str, Any]) -> dict[str, Any]:
        seen.append(record["row"])
        return record["row"]  # type: ignore[no-any-return]

    poison = [Poison(TopicPartition("t", 0), i, 0, None, encoder.value(row), "why") for i, row in enumerate(rows)]
    made, _ = Candidates(table, lambda subject: list(table.values), repair).of(poison)
    assert [candidate.bad for candidate in made] == [""] * len(rows)
    by_hand = [JsonRows(table).converted(loads(json.dumps(row_to_json(row, fields)))) for row in seen]
    for candidate, row in zip(made, by_hand, strict=True):
        assert candidate.value is not None
        ways = [candidate.poison.value, candidate.value, encoder.value(row)]
        if not _has_nan(row):  # a NaN is a NaN, whatever its bits were
            assert len({str(reader.decode([way]).rows.to_pylist()) for way in ways}) == 1


def _has_nan(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, float) and math.isnan(value)) or any(map(_has_nan, items))
