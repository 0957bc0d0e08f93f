"""A proposed schema takes the file as it is: no value is another one in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading_tables import bad, encoded, scanned, table, values

from merganser.pipeline.loading.load import ImportOptions
from merganser.pipeline.loading.propose import propose
from merganser.schemas.decode import Decoder
from merganser.schemas.errors import BadInput, UsageError

LONG, TEXT = "long", "string"
DATE = {"type": "int", "logicalType": "date"}
TIME = {"type": "long", "logicalType": "time-micros"}
INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}


def proposed(path: Path, key: list[str] | None = None, **options: Any) -> dict[str, Any]:
    schema = propose(scanned(path), ImportOptions(**options), "orders", key or [])
    return {f["name"]: f["type"][1] if isinstance(f["type"], list) else f["type"] for f in schema["fields"]}


@pytest.mark.parametrize(
    ("texts", "type_"),
    [
        (["1", "-2"], LONG),
        (["1", ""], LONG),
        (["1", "2.5"], "double"),
        (["007", "8"], TEXT),
        (["+7"], TEXT),
        (["9223372036854775807"], LONG),
        (["9223372036854775808"], TEXT),
        (["3.14159265358979323846"], TEXT),
        (["true", "false"], "boolean"),
        (["2026-01-31"], DATE),
        (["31/01/2026"], TEXT),
        (["12:30:00"], TIME),
        (["2026-01-31 12:00:00"], LOCAL),
        (["2026-01-31T12:00:00Z"], INSTANT),
        (["2026-01-31T12:00:00Z", "2026-01-31T12:00:00"], TEXT),
        (["duck", "1"], TEXT),
        (["", ""], TEXT),
    ],
)
def test_text_is_proposed_what_keeps_every_value(tmp_path: Path, texts: list[str], type_: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,c\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    assert proposed(path)["c"] == type_
    schema = propose(scanned(path), ImportOptions(), "orders", ["id"])
    assert schema["fields"][0] == {"name": "id", "type": "long"}
    assert schema["fields"][1]["default"] is None
    parts = encoded(path.read_bytes(), table(schema, ["id"]))
    assert bad(parts) == [] and len(values(parts)) == len(texts)


def test_names_are_spelled_as_columns_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("First Name,2nd,_offset,OK,x\na,1,1,1,1\n")
    assert list(proposed(path, columns={"x": ""})) == ["first_name", "c_2nd", "offset", "OK"]
    with pytest.raises(UsageError, match="no column 'id' to be a key"):
        proposed(path, ["id"])


def test_a_line_that_does_not_fit_is_no_reason_for_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n1,2,3\n4,5\n")
    assert proposed(path) == {"a": LONG, "b": LONG}


def test_json_lines_with_nested_values(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"id": 1, "price": 1.5, "when": "2026-01-31T12:00:00Z", "tags": ["a"], "at": {"lat": 1.5, "city": "x"}},
        {"id": 2, "price": 2, "when": "2026-01-31T12:00:00+01:00", "tags": [], "at": None, "late": "2026-01-31"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    found = proposed(path, ["id"])
    assert [found[name] for name in ("id", "price", "when", "late")] == ["long", "double", INSTANT, DATE]
    assert found["tags"] == {"type": "array", "items": ["null", "string"]}
    assert [f["name"] for f in found["at"]["fields"]] == ["lat", "city"]
    schema = propose(scanned(path), ImportOptions(), "orders", ["id"])
    parts = encoded(path.read_bytes(), table(schema, ["id"]), "json")
    assert [line for line, _ in bad(parts)] == [3] and len(values(parts)) == 2


@pytest.mark.parametrize("shape", ["{}", "[{}]", '{{"x": {}}}', '[{{"x": [1.5, {}]}}]'])
def test_json_numbers_with_many_digits_are_refused_not_rounded(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": ' + shape.format("3.14159265358979323846") + "}\n")
    with pytest.raises(BadInput, match="no one type takes all"):
        proposed(path)


def test_parquet_types_are_taken_over(tmp_path: Path) -> None:
    columns = {
        "i": pa.array([1], pa.int32()),
        "u": pa.array([2**64 - 1], pa.uint64()),
        "d": pa.array([1], pa.decimal128(9, 2)),
        "t": pa.array([1], pa.timestamp("ms", "Europe/Berlin")),
        "l": pa.array([1], pa.timestamp("ns")),
        "b": pa.array([b"x"]),
        "f": pa.array([b"abcd"], pa.binary(4)),
        "s": pa.array([{"x": [1]}]),
        "m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "c": pa.array(["x"]).dictionary_encode(),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    schema = propose(scanned(path), ImportOptions(), "orders", [])
    declared = table(schema)
    parts = encoded(path.read_bytes(), declared, "parquet")
    assert bad(parts) == []
    [row] = Decoder(declared.latest, "t").decode(values(parts)).rows.drop_columns(["l"]).to_pylist()
    assert row["u"] == 2**64 - 1 and row["s"] == {"x": [1]} and row["c"] == "x" and row["f"] == b"abcd"


def test_two_columns_that_would_have_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("First Name,first_name\nAda,Ada\n")
    with pytest.raises(BadInput, match="two columns would be 'first_name'"):
        proposed(path)
    assert list(proposed(path, columns={"First Name": "given"})) == ["given", "first_name"]
    assert list(proposed(path, columns={"First Name": ""})) == ["first_name"]


def test_what_other_tools_write_as_text_bytes_and_uuids_is_that(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a"], pa.string_view()),
        "data": pa.array([b"a"], pa.binary_view()),
        "id": pa.array([bytes(16)], pa.uuid()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert proposed(tmp_path / "a.parquet") == {
        "text": "string", "data": "bytes", "id": {"type": "string", "logicalType": "uuid"}
    }  # fmt: skip
    schema = propose(scanned(tmp_path / "a.parquet"), ImportOptions(), "orders", [])
    assert not bad(encoded((tmp_path / "a.parquet").read_bytes(), table(schema), "parquet"))
