"""A scripted log that can be written to, as a retry does, and a store of it at rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from merganser.consumers.apply import BatchLimits
from merganser.consumers.catchup import apply_until
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.quarantine.candidates import Candidates
from merganser.pipeline.quarantine.retry import Choice, Retry, Tried
from merganser.producers.bulk import BulkOptions, WholeRecord
from merganser.schemas.errors import RolledBack
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog, FakeRecord
from support.frames import framed

KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}
ROW: dict[str, Any] = {
    "type": "record",
    "name": "row",
    "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "long"}],
    "merganser": {"checks": ["n >= 0"]},
}
WIDER = {**ROW, "fields": [*ROW["fields"], {"name": "tag", "type": "string", "default": ""}]}


class WritableLog(FakeLog):
    """Tables ``keyed`` and ``plain``, two partitions each."""

    def __init__(self) -> None:
        super().__init__(1)
        key = SchemaVersion(key_subject("keyed"), 1, 9, KEY)
        self.add(Table("keyed", "i+d/k", 2, (SchemaVersion(value_subject("keyed"), 1, 1, ROW),), ("id",), "avro", key))
        self.add(Table("plain", "id-p", 2, (SchemaVersion(value_subject("plain"), 1, 2, ROW),)))
        self.before_commit: Callable[[], None] = lambda: None

    def row(
        self, table: str, partition: int, id_: int, n: int, tag: str | None = None, marks: Marks | None = None
    ) -> FakeRecord:
        """A row; with a *tag* of the schema that :meth:`widen` registers."""
        id_of = {"keyed": 1, "plain": 2}[table] + (10 if tag is not None else 0)
        schema, row = (WIDER, {"id": id_, "n": n, "tag": tag}) if tag is not None else (ROW, {"id": id_, "n": n})
        return self.put(table, partition, self.key(table, id_), framed(id_of, schema, row), marks)

    def key(self, table: str, id_: int) -> bytes | None:
        return framed(9, KEY, {"id": id_}) if table == "keyed" else None

    def delete(self, partition: int, id_: int) -> None:
        self.put("keyed", partition, self.key("keyed", id_), None)

    def widen(self, table: str) -> None:
        self.register(SchemaVersion(value_subject(table), 2, {"keyed": 11, "plain": 12}[table], WIDER))

    def bulk_writer(self, id: str, options: BulkOptions) -> FakeWriter:
        return FakeWriter(self)

    def records(self, table: str, partition: int) -> Sequence[FakeRecord | None]:
        return self.partitions[TopicPartition(table, partition)]


class FakeWriter:
    """Writes all of a call, or nothing."""

    def __init__(self, log: WritableLog) -> None:
        self._log = log

    def open(self) -> None: ...
    def close(self) -> None: ...

    def write_whole(
        self, records: Sequence[WholeRecord], *, confirm: Callable[[], str | None], on_step: Callable[[str], None]
    ) -> Position:
        on_step("begun")
        on_step("sent")
        if why := confirm():
            raise RolledBack("tx", why)
        self._log.before_commit()
        past = Position()
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            mine = self._log.partitions[partition]
            place = (*partition, len(mine))
            mine.append(
                FakeRecord(place, record.key, record.value, 1_800_000_000_000 + len(mine), tuple(record.headers))
            )
            past = past | Position.past(*place)
        on_step("committed")
        return past


class Bench:
    """A log, and a replica of it that is brought up to date and at rest between retries."""

    def __init__(self, path: Path) -> None:
        self.log, self.path = WritableLog(), path

    def fold(self, path: Path | None = None, cut: dict[TopicPartition, int] | None = None) -> Path:
        """Apply all that the log has; with a *cut*, up to there only."""
        path, until = path or self.path, self.log.ends(list(self.log.partitions))
        until = until if cut is None else Position({**dict.fromkeys(until, 0), **cut})
        store = Store(path, self.log.cluster_id, "g", STORE_LIMITS)
        try:
            log = BoundedLog(self.log, until)
            apply_until(log, store, ["keyed", "plain"], until, batches=BatchLimits(records=5))
        finally:
            store.close()
        return path

    def retry(
        self, table: str = "keyed", execute: bool = True, step: Any = None, read: Any = None, **more: Any
    ) -> Tried:
        """Retry what the store has in quarantine; *repair*, *rows*, *reason*, *limit* as they are there."""
        rows = more.pop("rows", None)
        with StoreFile(self.path) as store, store.reading() as cursor:
            declared = self.log.table(table)
            candidates = Candidates(declared, self.log.versions, more.pop("repair", None), "m:f", rows)
            log: Any = self.log
            mine = Retry(cursor, declared, log, read or log, candidates, 5)
            if step is not None:
                mine.step = step
            choice = Choice(only=rows, **more)
            return mine.execute(choice) if execute else mine.preview(choice)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with StoreFile(self.path) as store:
            return store.query(sql).rows()

    def quarantine(self) -> list[tuple[Any, ...]]:
        return self.rows('SELECT topic, partition, "offset", reason FROM _merganser.quarantine ORDER BY ALL')
