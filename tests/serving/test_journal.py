"""The log of requests has the shape of the SQL, and nothing that was in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.monitoring.journal import Journal, shape


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select a from t where b = 'x' and c > 17", "select a from t where b = ? and c > ?"),
        ("select 1\n  -- why\n, 2 /* because */", "select ? , ?"),
        ("select $$a$$, $tag$b$tag$", "select ? , ?"),
        ("select 'it''s', E'x\\'y', x'ff'", "select ? , ? , ?"),
        ('select "a b" from "T"', 'select "a b" from "T"'),
        ("select 'ä', 1 from \"ü\" where 'ö' = 'ß'", 'select ? , ? from "ü" where ? = ?'),
        ("", ""),
    ],
)
def test_a_statement_keeps_its_words_only(sql: str, expected: str) -> None:
    assert shape(sql).replace(" ,", ",") == expected.replace(" ,", ",")


_AROUND = st.text(st.characters(exclude_characters="qz'\"$/-", codec="utf-8"), max_size=30)


@given(_AROUND, st.text(alphabet="qz", min_size=6, max_size=12), _AROUND)
def test_no_text_gets_through_whatever_is_around_it(before: str, secret: str, after: str) -> None:
    assert secret not in shape(f"select {before} '{secret}' {after}")


@given(st.text(max_size=200))
def test_nothing_is_too_odd_to_be_looked_at(sql: str) -> None:
    assert "\n" not in shape(sql) and len(shape(sql)) <= 500


def test_what_is_too_long_is_not_looked_at() -> None:
    assert shape("select " + "1," * 100_000 + "1") == ""


def test_the_file_has_a_json_line_a_request(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "requests")
    journal.note("http", path="/query", status="200", user=None, sql="select ?\n")
    journal.close()
    journal.note("http", path="/late")
    [line] = (tmp_path / "requests").read_text().splitlines()
    told = json.loads(line)
    assert told["path"] == "/query" and "user" not in told and told["at"].startswith("20")
