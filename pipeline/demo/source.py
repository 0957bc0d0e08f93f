"""The rows in the log: found there from an earlier run, or written now.

Invariants: topics that the demo did not make are left alone, whatever they are named; rows count as
there only if the log has exactly those that an earlier run has written whole.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schemas.position import Position, TopicPartition
from ..log import Log
from .data import Data
from .tables import TABLES

#: How many rows between two looks at the replica.
_STEP = 1000


@dataclass(frozen=True)
class Source:
    """The demo's tables in one log. *names* maps the tables' plain names to those in the log."""

    names: dict[str, str]
    token: Position | None
    """Just past the last row; None if the rows are still to be written."""


def find_source(log: Log, notes: Path, fresh: bool, say: Callable[[str], None]) -> Source:
    """The rows of an earlier run, if they are there whole; else names that no topic has, and no rows."""
    noted = {} if fresh else _read(notes).get(log.cluster_id, {})
    if noted:
        names, token = noted["names"], Position.parse(noted["token"])
        if _as_noted(log, noted["topic_ids"], token):
            return Source(names, token)
        say("the tables of the last run have changed since, or are gone: writing new ones")
    return Source(_free_names(log), None)


def write_rows(log: Log, data: Data, source: Source, notes: Path, tick: Callable[[int], None]) -> Source:
    """Write all rows, in order of time; *tick* is told how many so far."""
    names = source.names
    with log.producer() as producer:
        for number, (table, row) in enumerate(data.rows(), 1):
            producer.put(names[table], row)
            if number % _STEP == 0:
                tick(number)
        token = producer.flush()
    tick(number)
    done = Source(names, token)
    _note(log, notes, done)
    return done


def create_tables(log: Log, source: Source) -> None:
    for table in TABLES:
        log.create_table(source.names[table.name], table.schema(), table.key)


def _as_noted(log: Log, topic_ids: dict[str, str], token: Position) -> bool:
    found = log.describe(topic_ids)
    if {name: facts.topic_id for name, facts in found.items()} != topic_ids:
        return False
    partitions = [TopicPartition(name, p) for name, facts in found.items() for p in range(facts.partitions)]
    ends, starts = log.ends(partitions), log.starts(partitions)
    return all(ends[tp] == token.get(tp, 0) and starts[tp] == 0 for tp in partitions)


def _free_names(log: Log) -> dict[str, str]:
    for n in itertools.count(1):
        names = {t.name: t.name if n == 1 else f"{t.name}_{n}" for t in TABLES}
        if not log.describe(names.values()):
            return names
    raise AssertionError("unreachable")


def _note(log: Log, notes: Path, source: Source) -> None:
    """Remember what is in the log, by one rename."""
    facts = log.describe(source.names.values())
    known = _read(notes)
    known[log.cluster_id] = {
        "names": source.names,
        "topic_ids": {name: fact.topic_id for name, fact in facts.items()},
        "token": str(source.token),
    }
    notes.parent.mkdir(parents=True, exist_ok=True)
    scratch = notes.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    scratch.replace(notes)


def _read(notes: Path) -> dict[str, Any]:
    try:
        found = json.loads(notes.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
