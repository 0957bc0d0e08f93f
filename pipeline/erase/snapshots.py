"""Erasing a key's rows out of full backups: out of the files that hold some, and the manifests that name those.

A file is named by what is in it, so one that changes is another one; the manifest names it instead, and has digests
less those of the rows that went. What the store's account said of them goes along: a row was superseded, a record in
quarantine left a gap.

Invariants
- Nothing but the key's rows, its records in quarantine and what tells of them changes.
- A backup is at each moment whole, with the key or without, or one that lacks its mark and that the next
  `backup create`, or erasure, finishes. No old file goes before no manifest names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.contents import Chunk, add_rows
from ...consumers.dbfile import SYSTEM_TABLES
from ...consumers.digest import Digest, quarantine_digest, table_digest
from ...consumers.ledger import STANDS_IN
from ...consumers.statements import run, view
from ...schemas.errors import NotErasable
from ...schemas.headers import Erased, erased
from ...schemas.types import quote
from ..archive.archive import Archive
from ..backup import files
from ..backup.files import Entry
from ..backup.manifest import Backup, TableFacts
from .keyed import TheKey

#: Offsets of records of the key, by partition.
Offsets = Mapping[int, Collection[int]]

#: What stands in for records of the key, by partition and offset.
StandIns = Mapping[tuple[int, int], Erased]

_NO_REASON = "of a record that is erased"


@dataclass
class Found:
    """What a full backup has of the key, by partition: offsets of *rows*, of records in *quarantine*, and of those that
    are held back. *stand_ins* are held back in the place of records that were erased before, of whichever key."""

    rows: dict[int, set[int]] = field(default_factory=dict)
    quarantine: dict[int, set[int]] = field(default_factory=dict)
    pending: dict[int, set[int]] = field(default_factory=dict)
    stand_ins: dict[tuple[int, int], Erased] = field(default_factory=dict)
    files: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.quarantine or self.pending)

    def of(self, entry: Entry) -> dict[int, set[int]]:
        """What it has in files like *entry*."""
        kinds = {"quarantine": self.quarantine, "pending": self.pending}
        return kinds[entry.table] if entry.system else self.rows


class Snapshots:
    """Looks through the full backups of *archive* for *key*, and makes them anew. Each file is read once, however many
    backups have it."""

    def __init__(self, archive: Archive, key: TheKey) -> None:
        self._archive, self._key = archive, key
        self._mine: dict[tuple[str, str, int], set[int]] = {}

    # -- looking -----------------------------------------------------------------------------

    def concerns(self, backup: Backup) -> TableFacts | None:
        """What *backup* has of the key's table, if it may hold rows of it."""
        if backup.type != "full":
            return None
        return next((facts for facts in backup.tables if facts.topic == self._key.table.name), None)

    def look(self, backup: Backup, tell: Callable[[int], None] = lambda size: None) -> Found:
        """What *backup* has of the key."""
        facts, found = self.concerns(backup), Found()
        for entry in backup.files if facts is not None else ():
            if facts is not None and entry.topic == facts.topic and _holds(entry):
                if mine := self._offsets(backup, facts, entry):
                    found.of(entry).setdefault(entry.partition, set()).update(mine)
                    found.files += 1
                if entry.system and entry.table == "pending":
                    found.stand_ins |= _stand_ins_held(self._read(backup, entry))
            tell(entry.size)
        return found

    def _offsets(self, backup: Backup, facts: TableFacts, entry: Entry) -> set[int]:
        """The offsets of the key in one file."""
        at = (entry.address, entry.table, entry.partition)
        if at not in self._mine:
            rows = self._read(backup, entry)
            if entry.system:
                self._mine[at] = set(
                    rows["offset"].take(pa.array(self._key.among(rows["key"]), pa.int64())).to_pylist()
                )
            else:
                self._mine[at] = self._among(facts, rows)
        return self._mine[at]

    def _among(self, facts: TableFacts, rows: pa.Table) -> set[int]:
        """The offsets of the key's rows: compared in DuckDB, by the columns' own types, as a replica deletes."""
        key = list(self._key.table.key)
        types = dict(facts.columns)
        if not types.keys() >= set(key):
            raise NotErasable(facts.topic, f"a backup's table has not its key columns {', '.join(key)}", _BY_EXPIRE)
        columns = self._key.columns
        definitions = ", ".join(f"{quote(name)} {types[name]}" for name in [*key, "_offset"])
        match = " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM k.{quote(name)}" for name in key)
        with _duckdb() as con:
            run(con, f'CREATE TABLE "#rows" ({definitions})')
            add_rows(con, '"#rows"', rows.select([*key, "_offset"]), {name: types[name] for name in key})
            with view(con, "#key", columns):
                return {at for (at,) in run(con, f'SELECT t._offset FROM "#rows" AS t JOIN "#key" AS k ON {match}')}

    def _read(self, backup: Backup, entry: Entry) -> pa.Table:
        return files.read(self._archive.objects, entry, self._archive.key if backup.key else None)

    # -- making anew -------------------------------------------------------------------------

    def made_anew(
        self, backup: Backup, found: Found, known: Offsets, stand_ins: StandIns, step: Callable[[str], None]
    ) -> Backup:
        """*backup* without the key; its new files are there then. *known* are the offsets of its records in the log,
        which the store remembers too: as the last of a partition, or with a reason. NotErasable if it holds a record
        back that something depends on, and *stand_ins* do not say what is to be in its place."""
        facts = self.concerns(backup)
        assert facts is not None  # something of it was found
        rows, poison = Digest(0, 0), Digest(0, 0)
        entries: list[Entry] = []
        for entry in backup.files:
            table = self._read(backup, entry) if self._changes(entry, facts, found) else None
            now = table
            if table is not None and entry.topic == facts.topic and _holds(entry):
                gone = table.filter(self._is_mine(backup, facts, entry, table))
                now = table.filter(pc.invert(self._is_mine(backup, facts, entry, table)))
                if entry.system and entry.table == "pending":
                    now = _held(backup, table, self._offsets(backup, facts, entry), stand_ins)
                elif entry.system:
                    poison = _sum(poison, _quarantine_digest(facts, gone))
                else:
                    rows = _sum(rows, _rows_digest(facts, gone))
            elif table is not None:
                now = _told(entry, table, facts.topic, found, known)
            if table is None or now is None or now.equals(table):
                entries.append(entry)
            elif now.num_rows:
                entries.append(self._put(backup, entry, now, step))
        tables = tuple(
            replace(each, digest=_less(each.digest, rows), quarantine=_less(each.quarantine, poison))
            if each.topic == facts.topic
            else each
            for each in backup.tables
        )
        return replace(backup, files=tuple(entries), tables=tables)

    def _changes(self, entry: Entry, facts: TableFacts, found: Found) -> bool:
        """Whether the file of *entry* may have to change."""
        if entry.system and entry.table in ("tables", "positions"):
            return True
        if entry.topic != facts.topic:
            return False
        operations = entry.system and entry.table == "operations"
        return operations or (_holds(entry) and entry.partition in found.of(entry))

    def _is_mine(self, backup: Backup, facts: TableFacts, entry: Entry, table: pa.Table) -> pa.ChunkedArray:
        offsets = self._offsets(backup, facts, entry)
        name = entry.stretch.offset.strip('"')
        return pc.is_in(table[name], value_set=pa.array(sorted(offsets), pa.int64()))

    def _put(self, backup: Backup, entry: Entry, rows: pa.Table, step: Callable[[str], None]) -> Entry:
        key = self._archive.key if backup.key else None
        encoded = files.encode(rows, key)
        data = files.sealed(encoded, rows, key)
        self._archive.objects.put(files.name_of(encoded.address), data)
        step("file-put")
        first, last = entry.first, entry.last
        if entry.partition >= 0:
            offsets = rows[entry.stretch.offset.strip('"')]
            first, last = offsets[0].as_py(), offsets[-1].as_py()
        chunk = Chunk(entry.stretch, rows, first, last)
        return files.entry(chunk, encoded.address, len(data), sha256(data).hexdigest())


_BY_EXPIRE = "remove that backup first: `merganser backup expire`"


def _holds(entry: Entry) -> bool:
    """Whether the rows of *entry* have keys."""
    return not entry.system or entry.table in ("quarantine", "pending")


def _stand_ins_held(held: pa.Table) -> dict[tuple[int, int], Erased]:
    """What stands in for erased records among what is *held* back."""
    columns = (held[name].to_pylist() for name in ("partition", "offset", "resolution"))
    return {
        (partition, offset): erased(text.removeprefix(STANDS_IN))
        for partition, offset, text in zip(*columns, strict=True)
        if text is not None and text.startswith(STANDS_IN)
    }


def _held(backup: Backup, held: pa.Table, mine: Collection[int], stand_ins: StandIns) -> pa.Table:
    """What is *held* back, less the records at the offsets *mine*, but for what stands in for some."""
    kept = []
    for row in held.to_pylist():
        if row["offset"] in mine and (row["tx"] is not None or row["ops"]):
            stands_in = stand_ins.get((row["partition"], row["offset"]))
            if stands_in is None:
                at = f"{row['topic']}/{row['partition']}:{row['offset']}"
                why = f"backup {backup.id} holds its record at {at} back, and the archive has none there"
                raise NotErasable(row["topic"], why, _BY_EXPIRE)
            row |= {"key": None, "value": None, "condition": None, "resolution": f"{STANDS_IN}{stands_in}"}
            kept.append(row)
        elif row["offset"] not in mine:
            kept.append(row)
    return pa.Table.from_pylist(kept, schema=held.schema)


def _told(entry: Entry, table: pa.Table, topic: str, found: Found, known: Offsets) -> pa.Table:
    """*table* of `_merganser`, as it has to be once what was *found* is gone."""
    rows = table.to_pylist()
    for row in rows:
        if row["topic"] != topic:
            continue
        mine = set(known.get(row.get("partition", -1), ())) | found.quarantine.get(row.get("partition", -1), set())
        if entry.table == "tables":
            row["superseded"] += sum(map(len, found.rows.values()))
        elif entry.table == "positions":
            row["gaps"] += sum(len(each.get(row["partition"], ())) for each in (found.quarantine, found.pending))
            if row["last_offset"] in mine:  # its digest is of the record; the log is no longer held against it
                row |= {"last_offset": None, "digest": None, "leader_epoch": None}
        elif row["offset"] in mine and row["reason"] is not None:
            row["reason"] = _NO_REASON
    return pa.Table.from_pylist(rows, schema=table.schema)


def _duckdb() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:")
    con.sql("SET GLOBAL TimeZone = 'UTC'")
    return con


# -- digests: sums over rows, so that what went can be taken off ---------------------------------


def _rows_digest(facts: TableFacts, rows: pa.Table) -> Digest:
    types = dict(facts.columns)
    with _duckdb() as con:
        run(con, f"CREATE TABLE {quote(facts.topic)} ({', '.join(f'{quote(n)} {t}' for n, t in facts.columns)})")
        add_rows(con, quote(facts.topic), rows, types)
        return table_digest(con, facts.topic)


def _quarantine_digest(facts: TableFacts, rows: pa.Table) -> Digest:
    with _duckdb() as con:
        con.execute(SYSTEM_TABLES).fetchall()
        add_rows(con, "_merganser.quarantine", rows, {})
        return quarantine_digest(con, facts.topic)


def _sum(one: Digest, other: Digest) -> Digest:
    return Digest(one.rows + other.rows, one.total + other.total)


def _less(text: str, gone: Digest) -> str:
    """The digest that *text* spells, less what is *gone*."""
    rows, _, total = text.partition("-")
    return str(Digest(int(rows) - gone.rows, int(total, 16) - gone.total))
