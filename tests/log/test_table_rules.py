"""Checks and conditions of a table: made with it, kept with it, refused where they cannot be."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from merganser.pipeline.log import Log, connect
from merganser.schemas.errors import BadSchema, IncompatibleSchema, InvalidRow, TableExists, UnknownTable, UsageError
from merganser.schemas.kafka import Cluster, Connection
from merganser.schemas.table import value_subject

FIELDS = [{"name": "id", "type": "long"}, {"name": "qty", "type": "int"}, {"name": "status", "type": "string"}]
ORDERS: dict[str, Any] = {"type": "record", "name": "t", "doc": "as I wrote it", "fields": FIELDS}
NOTE = {"name": "note", "type": "string", "default": ""}
CHECKS = ["qty > 0", "status in ('new', 'it''s paid')"]
SAID = {"checks": CHECKS, "conditions": "partition"}


@pytest.fixture
def log(broker: str) -> Iterator[Log]:
    with connect(broker) as log:
        yield log


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def topic(log: Log, name: str, **settings: str) -> None:
    """A topic that is not ours."""
    assert Cluster(Connection(log.bootstrap_servers).client_config()).create_topic(name, 1, settings)


def nothing_made(log: Log, name: str) -> bool:
    return name not in Cluster(Connection(log.bootstrap_servers).client_config()).topics() and not log.versions(
        value_subject(name)
    )


def test_they_travel_in_the_first_schema_and_the_same_again_is_a_no_op(log: Log, name: str) -> None:
    table = log.create_table(name, ORDERS, ["id"], checks=CHECKS, conditions="partition")
    assert table.checks == tuple(CHECKS) and table.conditions == "partition" and table.conditions_refused is None
    assert table.latest.schema == {**ORDERS, "merganser": SAID}
    for asked in ({"checks": CHECKS, "conditions": "partition"}, {"checks": CHECKS}, {"conditions": "partition"}, {}):
        assert log.create_table(name, ORDERS, ["id"], **asked) == table  # type: ignore[arg-type]
    assert log.create_table(name, {**ORDERS, "merganser": SAID}, ["id"]) == table
    assert len(log.versions(value_subject(name))) == 1


def test_without_any_the_schema_stays_as_it_was_written(log: Log, name: str) -> None:
    table = log.create_table(name, ORDERS, ["id"], checks=[], conditions="any")
    assert (table.checks, table.conditions, table.latest.schema) == ((), "any", ORDERS)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"checks": ["qty > 1"]}, 'its checks are "qty > 0", .*, not "qty > 1"'),
        ({"checks": []}, "its checks are .*, not none"),
        ({"checks": list(reversed(CHECKS))}, "its checks are"),
        ({"conditions": "any"}, "its conditions are partition, not any"),
        ({"schema": {**ORDERS, "merganser": {"checks": CHECKS}}}, "its conditions are partition, not any"),
        ({"schema": {**ORDERS, "merganser": {"conditions": "partition"}}}, "its checks are .*, not none"),
    ],
)
def test_other_ones_are_refused_with_the_difference(log: Log, name: str, asked: dict[str, Any], why: str) -> None:
    log.create_table(name, ORDERS, ["id"], checks=CHECKS, conditions="partition")
    with pytest.raises(TableExists, match=why):
        log.create_table(name, **{"schema": ORDERS, "key": ["id"], **asked})
    assert len(log.versions(value_subject(name))) == 1


def test_which_tables_take_no_condition(log: Log, name: str) -> None:
    append = log.create_table(name, ORDERS)
    compacted = log.create_table(f"{name}-c", ORDERS, ["id"], compact=True)
    told = log.create_table(f"{name}-n", ORDERS, ["id"], conditions="none")
    for table, why in ((append, "no key"), (compacted, "compacted"), (told, "conditions=none")):
        assert table.conditions == "none" and why in (table.conditions_refused or "")
    assert log.create_table(name, ORDERS, conditions="none") == append
    with pytest.raises(TableExists, match="its conditions are none, not any"):
        log.create_table(name, ORDERS, conditions="any")


@pytest.mark.parametrize(
    ("asked", "error", "why"),
    [
        ({"checks": ["qty >"]}, BadSchema, 'check "qty >", character 6'),
        ({"checks": ["qty > 0", "qty > 'x'"]}, BadSchema, "not compared with 'x'"),
        ({"checks": ["price > 0"]}, BadSchema, "no column 'price'"),
        ({"checks": "qty > 0"}, UsageError, "a list of texts"),
        ({"checks": [7]}, UsageError, "a list of texts"),
        ({"conditions": "some"}, BadSchema, "not any, partition or none but 'some'"),
        ({"key": (), "conditions": "any"}, UsageError, "has no key"),
        ({"compact": True, "conditions": "partition"}, UsageError, "is compacted"),
        ({"schema": {**ORDERS, "merganser": 5}}, BadSchema, "not an object but 5"),
        ({"schema": {**ORDERS, "merganser": {"checks": "qty > 0"}}}, BadSchema, "not a list of texts"),
        ({"schema": {**ORDERS, "merganser": {"checks": [1]}}}, BadSchema, "not a list of texts"),
        ({"schema": {**ORDERS, "merganser": {"check": []}}}, BadSchema, "'check' is unknown"),
        ({"schema": {**ORDERS, "merganser": {"conditions": []}}}, BadSchema, "not any, partition or none"),
        ({"schema": {**ORDERS, "merganser": {"checks": ["qty"]}}}, BadSchema, "character 4"),
        ({"schema": {**ORDERS, "merganser": SAID}, "checks": ["qty > 1"]}, BadSchema, "say it once|asks for"),
    ],
)
def test_bad_ones_make_nothing(log: Log, name: str, asked: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        log.create_table(name, **{"schema": ORDERS, "key": ["id"], **asked})
    assert nothing_made(log, name)


def test_a_schema_as_text_may_have_the_attribute(log: Log, name: str) -> None:
    table = log.create_table(name, json.dumps({**ORDERS, "merganser": SAID}), ["id"])
    assert table.checks == tuple(CHECKS)
    with pytest.raises(BadSchema, match="not an object"):
        log.create_table(f"{name}-2", json.dumps({**ORDERS, "merganser": []}), ["id"])


# -- changing --------------------------------------------------------------------------------


def test_a_later_version_inherits_them(log: Log, name: str) -> None:
    made = log.create_table(name, ORDERS, ["id"], checks=CHECKS, conditions="partition")
    wider = {**ORDERS, "fields": [*FIELDS, NOTE]}
    altered = log.alter_table(name, wider)
    assert (altered.checks, altered.conditions, altered.latest.version) == (made.checks, "partition", 2)
    assert altered.latest.schema == wider
    assert log.alter_table(name, {**wider, "merganser": SAID}) == altered
    assert log.create_table(name, wider, ["id"], checks=CHECKS) == altered


@pytest.mark.parametrize("said", [{"checks": ["qty > 1"]}, {"checks": CHECKS}, {}, {"conditions": "none"}])
@pytest.mark.parametrize("fields", [FIELDS, [*FIELDS, NOTE]])
def test_a_later_version_with_others_is_refused(log: Log, name: str, fields: Any, said: Any) -> None:
    log.create_table(name, ORDERS, ["id"], checks=CHECKS, conditions="partition")
    with pytest.raises(IncompatibleSchema, match="the first version has checks"):
        log.alter_table(name, {**ORDERS, "fields": fields, "merganser": said})
    assert len(log.table(name).values) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ([{"name": "cap", "type": "int"}], 'qty: dropped, but the check "qty <= cap"'),
        ([{"name": "qty", "type": "double"}, {"name": "cap", "type": "int"}], "qty is DOUBLE, cap is INTEGER"),
    ],
)
def test_a_version_that_a_check_could_not_judge_is_refused(log: Log, name: str, change: Any, why: str) -> None:
    fields = [{"name": "id", "type": "long"}, {"name": "qty", "type": "int"}, {"name": "cap", "type": "int"}]
    log.create_table(name, {**ORDERS, "fields": fields}, ["id"], checks=["qty <= cap"])
    with pytest.raises(IncompatibleSchema, match=why):
        log.alter_table(name, {**ORDERS, "fields": [fields[0], *change]})
    renamed = [fields[0], {"name": "amount", "type": "long", "aliases": ["qty"]}, fields[2]]
    log.alter_table(name, {**ORDERS, "fields": renamed})
    with log.producer() as producer, pytest.raises(InvalidRow, match=r"'amount, cap'.*qty <= cap"):
        producer.put(name, {"id": 1, "amount": 2, "cap": 1})


# -- topics and schemas of others ------------------------------------------------------------


def test_an_existing_topic_gets_them_with_its_first_schema(log: Log, name: str) -> None:
    topic(log, name)
    asked: dict[str, Any] = {"key": ["id"], "key_encoding": "long", "checks": CHECKS, "existing": True}
    with pytest.raises(BadSchema, match="no column 'price'"):
        log.create_table(name, ORDERS, **{**asked, "checks": ["price > 0"]})
    with pytest.raises(UnknownTable):
        log.table(name)
    table = log.create_table(name, ORDERS, **asked)
    assert table.checks == tuple(CHECKS)
    assert log.create_table(name, ORDERS, **asked) == log.create_table(name, existing=True) == table


def test_a_registered_schema_decides_for_an_existing_topic(log: Log, name: str) -> None:
    topic(log, name)
    log._registry.register(value_subject(name), ORDERS)
    for asked in ({"checks": CHECKS}, {"conditions": "none"}, {"checks": CHECKS, "schema": ORDERS}):
        with pytest.raises(UsageError, match="the registry has the schema of its values already"):
            log.create_table(name, existing=True, **asked)  # type: ignore[arg-type]
    assert log.create_table(name, existing=True).checks == ()


def test_the_attribute_of_a_registered_schema_counts(log: Log, name: str) -> None:
    topic(log, name)
    log._registry.register(value_subject(name), {**ORDERS, "merganser": SAID})
    table = log.create_table(name, key=["id"], key_encoding="long", existing=True)
    assert (table.checks, table.conditions) == (tuple(CHECKS), "partition")
    with log.producer() as producer, pytest.raises(InvalidRow):
        producer.put(name, {"id": 1, "qty": 0, "status": "new"})


@pytest.mark.parametrize("said", [5, {"checks": ["qty ~ 5"]}, {"checks": ["nope > 5"]}, {"newer": True}])
def test_a_table_whose_rules_cannot_be_read_is_not_used_without_them(log: Log, name: str, said: Any) -> None:
    topic(log, name)
    log._registry.register(value_subject(name), {**ORDERS, "merganser": said})
    with pytest.raises(BadSchema):
        log.table(name)
    with log.producer() as producer, pytest.raises(BadSchema):
        producer.put(name, {"id": 1, "qty": 1, "status": "new"})
    assert name not in [table.name for table in log.tables()]


def test_the_schema_of_an_earlier_table_decides_too(log: Log, name: str) -> None:
    log._registry.register(value_subject(name), ORDERS)
    with pytest.raises(TableExists, match="an earlier table of this name left its schema: its checks are none"):
        log.create_table(name, ORDERS, ["id"], checks=CHECKS)
    assert name not in Cluster(Connection(log.bootstrap_servers).client_config()).topics()
    assert log.create_table(name, ORDERS, ["id"]).checks == ()


def test_only_the_first_version_decides(log: Log, name: str) -> None:
    table = log.create_table(name, ORDERS, ["id"], checks=CHECKS)
    foreign = {**ORDERS, "doc": "by another client", "merganser": {"checks": []}}
    log._registry.register(value_subject(name), foreign)
    assert log.table(name).checks == table.checks
    assert replace(table, values=log.table(name).values[1:]).checks == ()
