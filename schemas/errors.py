"""Every error a user can meet, in one tree.

Each carries its facts as fields and a *hint*: what to do next, which a traceback shows too.
``str(error)`` is one line.
The command line prints ``error`` and ``hint`` and ends with ``exit_code``.

    MerganserError
    ├── UsageError                  the caller is wrong (exit 2)
    │   ├── UnknownTable  BadSchema  BadKeyColumns  BadPosition  NotHeld
    │   ├── BadQuery                SQL that does not run; NotAllowed if it could, and may not
    │   ├── IncompatibleSchema  OtherSchema  TableExists
    │   ├── InvalidRow  BadKeyFile  BadConfig  BadUsers  UnsafeDoor
    │   ├── BadInput  LoadedOtherwise
    │   ├── UnknownBackup  StoreInTheWay
    │   ├── BadTransform
    │   └── TransactionTooLarge
    ├── BadLine                     a line of an input is no row
    ├── TransformFailed             a function of the caller's failed on a row
    ├── LogError                    the log, or the way to it
    │   ├── LogUnavailable          bounded wait ended
    │   │   └── NotPermitted        Kafka answered that it may not be
    │   ├── DeliveryFailed          a write was not acknowledged
    │   ├── RolledBack              a transaction left nothing behind
    │   ├── CommitInDoubt           a transaction may or may not be committed
    │   ├── ProducerFenced          another producer has this one's id
    │   ├── ImportStopped           an import did not come to its end
    │   ├── RegistryUnavailable  UnsupportedFormat
    │   └── BrokerError             the local broker
    ├── TableStopped                a replica cannot go on with one table
    │   ├── RetentionLost  TopicRecreated  LogTruncated  PartitionsChanged
    │   ├── PartialStart  TombstonesLost  KeyChanged  DerivedTable
    │   └── TornTransaction  PendingFull  SplitTransaction  Undecidable
    ├── StoreError                  the replica's file
    │   ├── StoreLocked  StoreFormat  WrongCluster  StoreFull  StoreFailed
    │   ├── AuditFailed             an account that does not add up
    │   └── ReplayedWrong           a replay that was not put in place
    ├── ArchiveError                the archive's files, in an object store
    │   ├── ArchiveUnavailable  ArchiveDamaged  WrongArchive
    │   ├── WrongKey
    │   ├── BackupFailed  BackupBusy  no backup was made, or none removed
    │   ├── NotRestorable  RestoredWrong
    │   ├── NotRepublishable  RepublishStopped
    │   └── NotErasable
    ├── DemoFailed                  the demo could not go on, or a comparison did not hold
    ├── AccessError                 a door does not let the caller in
    │   ├── LoginFailed  TooManyLogins
    │   └── Forbidden               not for this user
    ├── ServiceError                a replica at an address, as its client sees it
    │   └── NoReplica               none of the addresses answered
    └── ReadError
        ├── ReadInterrupted         a schema change could not wait for a long read
        ├── TooBusy  TooLarge       more queries, or a larger answer, than a node gives
        ├── QueryTimeout  QueryCancelled
        └── NotFreshEnough          a bounded wait for freshness ended
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from .position import TopicPartition


class MerganserError(Exception):
    """Root of all errors that Merganser raises on purpose."""

    exit_code: ClassVar[int] = 1
    hint: str = ""

    def __post_init__(self) -> None:
        if self.hint:
            self.add_note(f"hint: {self.hint}")  # so that a traceback ends with it

    def hinted(self, hint: str) -> Self:
        """The same error with another hint, which its traceback shows too."""
        others = [note for note in getattr(self, "__notes__", ()) if not note.startswith("hint: ")]
        self.hint, self.__notes__ = hint, [*others, f"hint: {hint}"] if hint else others
        return self

    def __str__(self) -> str:
        return self.what()

    def what(self) -> str:
        """One line: what failed, where, and why."""
        return super().__str__()


# -- the caller is wrong ---------------------------------------------------------------------


class UsageError(MerganserError):
    """The call cannot succeed as it stands; nothing was written."""

    exit_code = 2


@dataclass(eq=False)
class UnknownTable(UsageError):
    """The log has no such table."""

    table: str
    hint: str = "`merganser table list` shows the tables; `merganser table create` makes one"

    def what(self) -> str:
        return f"unknown table {self.table!r}"


@dataclass(eq=False)
class BadSchema(UsageError):
    """A schema that is no Avro record, or has a type that a replica cannot keep."""

    table: str
    where: str
    why: str
    hint: str = "docs/schemas.md lists each Avro type and its SQL type"

    def what(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"schema of {self.table!r}{place}: {self.why}"


@dataclass(eq=False)
class BadKeyColumns(UsageError):
    """Key columns that the schema lacks, or whose type cannot be a key."""

    table: str
    column: str
    why: str
    hint: str = "name columns of the schema that are required, and neither float nor nested"

    def what(self) -> str:
        return f"key column {self.column!r} of table {self.table!r}: {self.why}"


@dataclass(eq=False)
class IncompatibleSchema(UsageError):
    """A new schema version that readers of the earlier ones could not follow."""

    subject: str
    why: str
    hint: str = "give an added field a default, promote types only (int → long → double), rename by alias"

    def what(self) -> str:
        return f"schema for {self.subject!r} is not compatible with its latest version: {self.why}"


@dataclass(eq=False)
class OtherSchema(UsageError):
    """The registry means something else by a number, or an id, that records were written with."""

    subject: str
    why: str
    hint: str = "a new log needs a registry that has nothing yet, or this very data: docs/backup.md"

    def what(self) -> str:
        return f"the schemas of {self.subject!r} cannot have the ids that their records have: {self.why}"


@dataclass(eq=False)
class TableExists(UsageError):
    """The table exists and differs from the one asked for."""

    table: str
    why: str
    hint: str = "`merganser table describe` shows it; `merganser table alter` changes its schema, nothing its key"

    def what(self) -> str:
        return f"table {self.table!r} exists and differs: {self.why}"


@dataclass(eq=False)
class InvalidRow(UsageError):
    """A row, or a key, that does not fit its table. Nothing was sent."""

    table: str
    column: str
    value: object
    why: str
    hint: str = "`merganser table describe` shows columns and types"

    def what(self) -> str:
        try:
            shown = repr(self.value)
        except Exception:  # noqa: BLE001  # a value's own repr must not hide why it was refused
            shown = f"a {type(self.value).__name__}"
        if len(shown) > 80:
            shown = shown[:77] + "..."
        return f"table {self.table!r}, column {self.column!r}, value {shown}: {self.why}"


@dataclass(eq=False)
class TransactionTooLarge(UsageError):
    """A transaction beyond the producer's bounds. Nothing of it was sent."""

    why: str
    hint: str = "split it, or raise ProducerOptions.transaction_rows or .transaction_bytes"

    def what(self) -> str:
        return f"the transaction is too large: {self.why}"


@dataclass(eq=False)
class BadPosition(UsageError):
    """Text that is no position."""

    text: str
    hint: str = "a position reads like orders/0:120,orders/1:98"

    def what(self) -> str:
        return f"not a position: {self.text!r}"


@dataclass(eq=False)
class BadQuery(UsageError):
    """SQL that a replica does not run: not one SELECT, or one that DuckDB refuses."""

    why: str
    hint: str = "one SELECT (or EXPLAIN) at a time; a replica's tables change through the log only"

    def what(self) -> str:
        return self.why


@dataclass(eq=False)
class NotAllowed(BadQuery):
    """SQL that a served replica refuses, or that this user may not run."""

    hint: str = "docs/serving.md says what is refused, and why; an operator grants tables"


@dataclass(eq=False)
class BadKeyFile(UsageError):
    """A file that holds no encryption key."""

    path: str
    why: str
    hint: str = "`openssl rand -hex 32 > FILE` makes one; without it nobody can read what it encrypted"

    def what(self) -> str:
        return f"key file {self.path}: {self.why}"


@dataclass(eq=False)
class BadConfig(UsageError):
    """A configuration file that cannot be followed. Nothing was started."""

    file: str
    key: str
    why: str
    hint: str = "docs/backup.md lists every key of merganser.toml"

    def what(self) -> str:
        return f"{self.file}: {f'{self.key}: ' if self.key else ''}{self.why}"


@dataclass(eq=False)
class BadUsers(UsageError):
    """A file of users that cannot be read, or may be read by others. Nobody is let in by it."""

    path: str
    why: str
    hint: str = "`merganser user add NAME --users FILE` makes one, and adds to it"

    def what(self) -> str:
        return f"users {self.path}: {self.why}"


@dataclass(eq=False)
class UnsafeDoor(UsageError):
    """A door that strangers could come in by. It was not opened."""

    door: str
    address: str
    why: str
    hint: str = (
        "--users with --tls-cert and --tls-key make it safe; 127.0.0.1 keeps it here; --insecure opens it all the same"
    )

    def what(self) -> str:
        return f"no {self.door} at {self.address}: {self.why}"


@dataclass(eq=False)
class UnknownBackup(UsageError):
    """The archive has no such backup."""

    url: str
    id: str
    why: str = ""
    hint: str = "`merganser backup list --archive URL` shows the backups"

    def what(self) -> str:
        return f"archive {self.url} has no backup {self.id!r}{f': {self.why}' if self.why else ''}"


@dataclass(eq=False)
class StoreInTheWay(UsageError):
    """A restore would replace a store."""

    path: str
    why: str
    hint: str = "restore into another file; --force replaces this one, and keeps it beside the new one"

    def what(self) -> str:
        return f"{self.path} is not replaced: {self.why}"


@dataclass(eq=False)
class NotHeld(UsageError):
    """A token names a partition that this replica does not hold."""

    partition: str
    hint: str = "ask a replica whose --tables include it, or read what is here: level eventual, a smaller token"

    def what(self) -> str:
        return f"this replica does not hold {self.partition}"


@dataclass(eq=False)
class BadLine(MerganserError):
    """A line of an input that is no row of its table. *written* rows before it were sent: none, unless
    the file changed after all of it had been checked."""

    source: str
    line: int
    why: str
    hint: str = "one JSON object a line; `merganser put --help` tells how each type is written"
    written: int = 0

    def what(self) -> str:
        sent = f"{self.written} rows before it were written" if self.written else "nothing was written"
        return f"{self.source}, line {self.line}: {self.why}; {sent}"


@dataclass(eq=False)
class BadInput(UsageError):
    """A file to import that cannot be read as what it should be. Nothing of it was written."""

    source: str
    why: str
    hint: str = "docs/loading.md tells what each format looks like"

    def what(self) -> str:
        return f"{self.source}: {self.why}"


@dataclass(eq=False)
class LoadedOtherwise(UsageError):
    """The same file was imported into the same table, or begun to be, under other options."""

    source: str
    table: str
    why: str
    hint: str = "give the same options, which `merganser import --list --json` shows; or --again to load it once more"

    def what(self) -> str:
        return f"{self.source}: table {self.table!r} {self.why}"


@dataclass(eq=False)
class BadTransform(UsageError):
    """What was named as a transform is no function that can be called."""

    name: str
    why: str
    hint: str = "name it module:function; the module is looked for in this folder too"

    def what(self) -> str:
        return f"transform {self.name!r}: {self.why}"


@dataclass(eq=False)
class TransformFailed(MerganserError):
    """A function of the caller's raised, or returned what is no row. Nothing was put in place."""

    name: str
    table: str
    partition: int
    offset: int
    why: str
    hint: str = "docs/replay.md tells what a transform gets and returns; mend it and run the same again"

    def what(self) -> str:
        return f"transform {self.name} failed on {self.table}/{self.partition} at offset {self.offset}: {self.why}"


# -- the log ---------------------------------------------------------------------------------


class LogError(MerganserError):
    """The log, or the way to it."""


@dataclass(eq=False)
class LogUnavailable(LogError):
    """No broker answered within the bounded wait."""

    bootstrap_servers: str
    why: str
    hint: str = (
        "`merganser broker status` for the local broker; check --bootstrap-servers and MERGANSER_KAFKA_CONFIG otherwise"
    )

    def what(self) -> str:
        return f"no answer from Kafka at {self.bootstrap_servers}: {self.why}"


@dataclass(eq=False)
class NotPermitted(LogUnavailable):
    """Kafka does not let this user do what was asked."""

    hint: str = "Kafka's ACLs give the right to it: docs/operations.md, What Kafka has to permit, has all that it takes"

    def what(self) -> str:
        return f"Kafka at {self.bootstrap_servers} does not permit it to this user: {self.why}"


@dataclass(eq=False)
class DeliveryFailed(LogError):
    """Writes that Kafka did not acknowledge. Whether they reached the log is unknown."""

    table: str
    why: str
    count: int = 1
    hint: str = "the rows may or may not be in the log: write them again, keyed rows do no harm twice"

    def what(self) -> str:
        return f"{self.count} write(s) not acknowledged, first to table {self.table!r}: {self.why}"


@dataclass(eq=False)
class RolledBack(LogError):
    """A transaction that could not be committed. Nothing of it is, or ever will be, in a table."""

    tx: str
    why: str
    hint: str = "run the transaction again, under the same operation id if it has one"

    def what(self) -> str:
        return f"transaction {self.tx} was rolled back: {self.why}"


@dataclass(eq=False)
class CommitInDoubt(LogError):
    """The commit was asked for and not answered: the transaction is in the log whole, or not at all."""

    tx: str
    why: str
    hint: str = "`replica.outcome(id)` settles it; or run it again under the same operation id (op=...)"

    def what(self) -> str:
        return f"whether transaction {self.tx} was committed is unknown: {self.why}"


@dataclass(eq=False)
class ProducerFenced(LogError):
    """A newer producer has taken this one's id over: this one can write no more transactions."""

    id: str
    hint: str = "only the newest producer of an id may write; give each running service an id of its own"

    def what(self) -> str:
        return f"producer {self.id!r} was fenced by a newer one of that id"


@dataclass(eq=False)
class ImportStopped(LogError):
    """An import that could not write its next chunk. What the ledger has of it is in the table, once."""

    source: str
    rows: int
    why: str
    hint: str = "run the same import again: it goes on after the last chunk that the ledger has"

    def what(self) -> str:
        return f"import of {self.source} stopped after {self.rows:,} rows: {self.why}"


@dataclass(eq=False)
class RegistryUnavailable(LogError):
    """The schema registry did not answer within the bounded wait."""

    registry: str
    why: str
    hint: str = "check --registry and that it runs; replicas pause and go on when it is back"

    def what(self) -> str:
        return f"no answer from the schema registry at {self.registry}: {self.why}"


@dataclass(eq=False)
class UnsupportedFormat(LogError):
    """A topic whose values are not Confluent Avro."""

    topic: str
    format: str
    hint: str = "Merganser reads Confluent-framed Avro today; JSON, Protobuf and Debezium are a later step"

    def what(self) -> str:
        return f"topic {self.topic!r} has {self.format} values"


@dataclass(eq=False)
class BrokerError(LogError):
    """The local broker could not be started, stopped or found."""

    why: str
    hint: str = "`merganser broker status` shows what runs; its log is under MERGANSER_HOME"

    def what(self) -> str:
        return f"local broker: {self.why}"


# -- a table that cannot go on ---------------------------------------------------------------


@dataclass(eq=False)
class TableStopped(MerganserError):
    """A replica cannot go on with a table without losing or inventing rows."""

    table: str
    why: str
    hint: str = "the store keeps what it has; `merganser status` shows the table as stopped"

    def what(self) -> str:
        return f"table {self.table!r} stopped: {self.why}"


@dataclass(eq=False)
class RetentionLost(TableStopped):
    """The log no longer holds the next record that the store needs."""

    hint: str = (
        "fill it from the archive (--archive), or make a new store (--accept-partial); raise the topic's retention.ms"
    )


@dataclass(eq=False)
class TopicRecreated(TableStopped):
    """The topic was deleted and created again: same name, another log."""

    hint: str = "start a new store for the new topic; the old rows stay readable in this one"


@dataclass(eq=False)
class LogTruncated(TableStopped):
    """The log lost, or changed, records that the store has applied."""

    hint: str = "the log went back behind this store: rebuild the replica, and look for an unclean election"


@dataclass(eq=False)
class PartitionsChanged(TableStopped):
    """The partition count changed, so the order per key is no longer the log's."""

    hint: str = "its rows go into a new topic: docs/operations.md, A topic that got partitions"


@dataclass(eq=False)
class KeyChanged(TableStopped):
    """The table was declared with another key than the one that the store's rows were kept by."""

    hint: str = "start a new store: what a row is depends on the key"


@dataclass(eq=False)
class TombstonesLost(TableStopped):
    """Away from a compacted topic for longer than it keeps deletes: some may have been missed."""

    hint: str = "rebuild the replica (a new store), or raise delete.retention.ms above your longest outage"


@dataclass(eq=False)
class PartialStart(TableStopped):
    """A new replica would start above offset 0: part of the table is no longer in the log."""

    hint: str = "start from the archive (--archive), or say --accept-partial (accept_partial=True)"


@dataclass(eq=False)
class DerivedTable(TableStopped):
    """The store holds a derived table in the place, or of the name, of a replica: it is not kept up."""

    hint: str = "`merganser replay TABLE --drop` removes it, and the log fills the table again; or replay it anew"


@dataclass(eq=False)
class TornTransaction(TableStopped):
    """Part of a committed transaction is missing from the log: it can be shown neither whole nor in part."""

    tx: str = ""
    hint: str = (
        "`merganser tx resolve ID --tables A,B --discard` (or --apply) decides for all replicas; then start them again"
    )


@dataclass(eq=False)
class SplitTransaction(TableStopped):
    """A transaction with conditions or operation ids, of which other members of a split group hold a part."""

    hint: str = (
        "follow all tables that such transactions write to, without --split; "
        "`conditions=partition` keeps producers from it"
    )


@dataclass(eq=False)
class Undecidable(TableStopped):
    """A record has a condition or an operation id, and Kafka compacts the topic: what decides on it may be gone."""

    hint: str = "restore a backup, or the archive, of before that: a store that had read the record goes on"


@dataclass(eq=False)
class PendingFull(TableStopped):
    """More records wait for transactions to complete than the store may hold back."""

    hint: str = (
        "raise limits.pending-bytes (merganser.toml), Limits.pending_bytes; `_merganser.pending` shows what waits"
    )


# -- the store -------------------------------------------------------------------------------


class StoreError(MerganserError):
    """The replica's DuckDB file."""


@dataclass(eq=False)
class StoreLocked(StoreError):
    """Another process has the store open."""

    path: str
    why: str
    hint: str = (
        "one process owns a store: ask its node (`merganser query --url`, `snapshot-file --url`), "
        "query it in its program (Replica.query), or stop it"
    )

    def what(self) -> str:
        return f"store {self.path} is in use by another process ({self.why})"


@dataclass(eq=False)
class StoreFormat(StoreError):
    """The file is no store, or one of another format version."""

    path: str
    why: str
    hint: str = "use the Merganser version that wrote it, or move it aside and start the replica: the log has every row"

    def what(self) -> str:
        return f"store {self.path}: {self.why}"


@dataclass(eq=False)
class WrongCluster(StoreError):
    """The store follows another Kafka cluster."""

    path: str
    stored: str
    found: str
    hint: str = "point --bootstrap-servers at the store's cluster, or use another --store"

    def what(self) -> str:
        return f"store {self.path} follows cluster {self.stored}, but this is cluster {self.found}"


@dataclass(eq=False)
class StoreFull(StoreError):
    """Too little room on the disk for the next commit. The store is whole up to its position."""

    path: str
    why: str
    hint: str = "free space on the store's disk and start the replica again: it goes on where it stopped"

    def what(self) -> str:
        return f"no room for store {self.path}: {self.why}"


@dataclass(eq=False)
class StoreFailed(StoreError):
    """DuckDB failed in a way that a reopen did not mend."""

    path: str
    why: str
    hint: str = "the log has every row: move the file aside and start the replica again"

    def what(self) -> str:
        return f"store {self.path} failed: {self.why}"


@dataclass(eq=False)
class AuditFailed(StoreError):
    """A store whose account does not add up: rows were lost, doubled, or changed behind its back."""

    path: str
    why: str
    hint: str = "keep a copy for a look at it; `merganser replay TABLE --into NAME --swap` makes it anew out of the log"

    def what(self) -> str:
        return f"the account of store {self.path} is off: {self.why}"


@dataclass(eq=False)
class ReplayedWrong(StoreError):
    """What was replayed does not add up. It was not put in place."""

    path: str
    why: str
    hint: str = "run it again; `merganser audit --log` and `archive check` tell whether the log is what it was"

    def what(self) -> str:
        return f"the replay of store {self.path} is wrong: {self.why}"


# -- the archive -----------------------------------------------------------------------------


class ArchiveError(MerganserError):
    """The archive: its files, or the object store that holds them."""


@dataclass(eq=False)
class ArchiveUnavailable(ArchiveError):
    """The object store did not do what was asked of it."""

    url: str
    why: str
    hint: str = "check the URL, credentials (AWS_* and the like) and room; what is published stays whole"

    def what(self) -> str:
        return f"archive {self.url}: {self.why}"


@dataclass(eq=False)
class ArchiveDamaged(ArchiveError):
    """A file of the archive is missing, changed, or not where it belongs. Nothing of it was taken."""

    url: str
    file: str
    why: str
    hint: str = "`merganser archive check` lists all that is wrong; put the file back from a copy of the archive"

    def what(self) -> str:
        return f"archive {self.url} is damaged: {self.file}: {self.why}"


@dataclass(eq=False)
class WrongArchive(ArchiveError):
    """The archive is of another cluster, or another format, or says otherwise than the registry."""

    url: str
    why: str
    hint: str = "one archive holds the topics of one cluster: use another URL for another one"

    def what(self) -> str:
        return f"archive {self.url}: {self.why}"


@dataclass(eq=False)
class WrongKey(ArchiveError):
    """What is encrypted cannot be read with the key given, or without one."""

    file: str
    why: str
    hint: str = "--key-file (or MERGANSER_KEY_FILE) names the file with the key that it was written with"

    def what(self) -> str:
        return f"{self.file}: {self.why}"


@dataclass(eq=False)
class BackupFailed(ArchiveError):
    """No backup was made. What was uploaded is found by the next one."""

    why: str
    hint: str = "run it again: it goes on with what was uploaded"

    def what(self) -> str:
        return f"no backup was made: {self.why}"


@dataclass(eq=False)
class BackupBusy(ArchiveError):
    """Backups are being made, or removed, by another process."""

    url: str
    why: str
    hint: str = "try again when it is done; what a killed process left is taken over after an hour"

    def what(self) -> str:
        return f"archive {self.url}: {self.why}"


@dataclass(eq=False)
class NotRestorable(ArchiveError):
    """Backups, archive and log together do not lead to the position that was asked for."""

    target: str
    why: str
    hint: str = "`restore --dry-run --to latest` shows how far they lead; `archive check` and `backup verify` why"

    def what(self) -> str:
        return f"cannot restore to {self.target}: {self.why}"


@dataclass(eq=False)
class RestoredWrong(ArchiveError):
    """What was restored is not what was backed up. It was not put in place."""

    path: str
    why: str
    hint: str = "`backup verify` and `archive check` read every byte; `restore --base none` goes without backups"

    def what(self) -> str:
        return f"the store restored in {self.path} is wrong: {self.why}"


@dataclass(eq=False)
class NotRepublishable(ArchiveError):
    """The rows of an archive cannot become, or go on to become, the log of this cluster."""

    table: str
    why: str
    hint: str = "a new log is made on a new cluster, before anything else writes there: docs/backup.md"

    def what(self) -> str:
        return f"cannot republish {self.table!r}: {self.why}"


@dataclass(eq=False)
class NotErasable(ArchiveError):
    """A key cannot be erased from an archive without harm to the rest, or not yet."""

    table: str
    why: str
    hint: str = "docs/backup.md, Erasing one key's history"

    def what(self) -> str:
        return f"cannot erase the key from {self.table!r}: {self.why}"


@dataclass(eq=False)
class RepublishStopped(ArchiveError):
    """A republish did not come to its end. What is written stays, and no table shows before all are whole."""

    why: str
    hint: str = "run the same again: it goes on after the last row that is there"

    def what(self) -> str:
        return f"the republish stopped: {self.why}"


# -- the demo --------------------------------------------------------------------------------


@dataclass(eq=False)
class DemoFailed(MerganserError):
    """The demo could not go on, or what it shows did not hold."""

    why: str
    hint: str = "MERGANSER_DEBUG=1 shows more; `merganser demo --fresh` begins anew"

    def what(self) -> str:
        return self.why


# -- doors -----------------------------------------------------------------------------------


class AccessError(MerganserError):
    """A door does not let the caller in."""


@dataclass(eq=False)
class LoginFailed(AccessError):
    """No such user, or not this password or token: which of them is not said."""

    why: str = "user and password, or token, do not fit"
    hint: str = "the node's operator adds users with `merganser user add`"

    def what(self) -> str:
        return self.why


@dataclass(eq=False)
class TooManyLogins(AccessError):
    """Too many log-ins failed, or too many are being looked at."""

    user: str
    retry_s: float
    hint: str = "wait, then log in with the right password"

    def what(self) -> str:
        return f"too many log-ins: try again in {self.retry_s:.0f} s"


@dataclass(eq=False)
class Forbidden(AccessError):
    """What this user may not do."""

    user: str
    why: str
    hint: str = "the node's operator gives roles and tables with `merganser user add --again`"

    def what(self) -> str:
        return f"user {self.user!r} may not: {self.why}"


class ServiceError(MerganserError):
    """A replica at an address, as its client sees it."""


@dataclass(eq=False)
class NoReplica(ServiceError):
    """None of the addresses gave an answer."""

    why: str
    hint: str = "check the addresses, and that a node runs there with --http"

    def what(self) -> str:
        return f"no replica answered: {self.why}"


# -- reads -----------------------------------------------------------------------------------


class ReadError(MerganserError):
    """A read that could not be answered as asked."""


@dataclass(eq=False)
class ReadInterrupted(ReadError):
    """A read was open for so long that a schema change interrupted it."""

    path: str
    hint: str = "begin it again: the schema has changed by now"

    def what(self) -> str:
        return f"a schema change of store {self.path} interrupted a long read"


@dataclass(eq=False)
class TooBusy(ReadError):
    """A node runs, or keeps, as many queries as it may."""

    why: str
    hint: str = "try again in a moment, or ask another node"

    def what(self) -> str:
        return f"the node is busy: {self.why}"


@dataclass(eq=False)
class TooLarge(ReadError):
    """A query takes, or gives, more than a node allows one."""

    why: str
    hint: str = "ask for less: fewer rows or columns, an aggregate; or query a snapshot file"

    def what(self) -> str:
        return self.why


@dataclass(eq=False)
class QueryTimeout(ReadError):
    """A query ran for longer than it may, or an answer was read for longer."""

    what_took: str
    limit_s: float
    hint: str = "ask for less, or for a longer timeout if the node allows one"

    def what(self) -> str:
        return f"{self.what_took} took more than {self.limit_s:.3g} s"


@dataclass(eq=False)
class QueryCancelled(ReadError):
    """The client gave its query up, or the node stops."""

    why: str = "by its client"

    def what(self) -> str:
        return f"the query was cancelled {self.why}"


@dataclass(eq=False)
class NotFreshEnough(ReadError):
    """The replica did not reach the asked freshness within the timeout."""

    level: str
    timeout_s: float
    behind: str
    hint: str = "raise the timeout, or read at level=eventual; `merganser status` shows the lag"
    lacks: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Offsets that partitions of the replica lack, where it is they that were waited for."""

    def what(self) -> str:
        return f"not fresh enough for {self.level!r} within {self.timeout_s:.3g} s: {self.behind}"
