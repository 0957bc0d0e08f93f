"""What a replay reads, and what its words come to: the questions that planning needs answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ...consumers.checks import Held
from ...consumers.follow import check_same_key
from ...schemas.errors import (
    BadPosition,
    LogTruncated,
    PartitionsChanged,
    RetentionLost,
    TopicRecreated,
    UsageError,
    WrongCluster,
)
from ...schemas.kafka import TopicId
from ...schemas.position import Position, TopicPartition
from ..archive.archive import Archive
from ..archive.bridged import BridgedLog, Live
from ..moments import is_time, time_ms
from .plan import BEGINNING, LATEST, STORE, Facts, ReplayPlan, Wish, check_names, plan_replay


@dataclass(frozen=True)
class Source:
    """A log to replay, and what to call it."""

    log: Live
    name: str


def source_of(archive: Archive | None, log: Live | None, table: str, stored: Mapping[str, str]) -> Source:
    """Kafka; with an *archive*, what Kafka has lost from there. The archive alone, if Kafka does not answer or no
    longer has the topic of *table*. *stored* are the ids of the topics that the store is of."""
    if archive is None:
        if log is None:
            raise UsageError("there is nothing to replay from: neither Kafka nor an archive")
        return Source(log, f"Kafka at {log.bootstrap_servers}")
    if log is not None:
        found = log.identify([table]).get(table)
        if found is not None and stored.get(table) in (None, found.topic_id):
            return Source(BridgedLog(archive.log(), log), f"archive {archive.url}, and Kafka where it begins")
    alone = archive.log()
    alone.choose(stored)
    return Source(alone, f"archive {archive.url} alone")


def plan(
    wish: Wish, facts: Facts, source: Source, cluster_id: str, store: str
) -> tuple[ReplayPlan, dict[TopicPartition, Held]]:
    """How to fulfil *wish*, and where each partition that may be read begins."""
    if source.log.cluster_id != cluster_id:
        raise WrongCluster(store, cluster_id, source.log.cluster_id)
    check_names(wish, facts)
    held = dict(facts.held)
    if wish.table not in facts.tables:  # it is derived, so the store no longer holds its partitions
        held |= facts.derived[wish.table].begun
    _same_topics(wish.table, held, source)
    if wish.table in facts.stored:
        check_same_key(source.log.table(wish.table), facts.stored[wish.table].declared_key)
    begin = Position({tp: each.first for tp, each in held.items()})
    target = _target(wish, facts, held, source)
    check_reach(source, begin.of({wish.table}), target.of({wish.table}))
    return plan_replay(wish, facts, begin, _since(wish, held, source), target, source.name), held


def check_reach(source: Source, begin: Position, target: Position) -> None:
    """RetentionLost or LogTruncated unless *source* leads from *begin* to *target*."""
    starts, ends = source.log.starts(begin), source.log.ends(target)
    for tp, offset in sorted(target.items()):
        if starts.get(tp, 0) > begin.get(tp, 0):
            why = f"{source.name} has {tp} from offset {starts[tp]} on, the store began at {begin.get(tp, 0)}"
            raise RetentionLost(tp.topic, why)
        if ends.get(tp, 0) < offset:
            why = f"{source.name} has {tp} up to offset {ends.get(tp, 0)}, the replay goes to {offset}"
            raise LogTruncated(
                tp.topic, why, "name an earlier --to; or let `archive run` catch up, if it is the archive"
            )


def _same_topics(table: str, held: Mapping[TopicPartition, Held], source: Source) -> None:
    """TopicRecreated or PartitionsChanged unless the log has the very topic that the store is of."""
    mine = {tp.partition: each.topic_id for tp, each in held.items() if tp.topic == table}
    found: TopicId | None = source.log.identify([table]).get(table)
    if found is None:
        raise TopicRecreated(table, "the topic was deleted", hint="replay it from the archive (--archive)")
    if found.topic_id not in mine.values():
        raise TopicRecreated(table, f"the topic was created again (id {found.topic_id})")
    if mine.keys() != set(range(found.partitions)):
        raise PartitionsChanged(table, f"the log has {found.partitions} partitions, the store holds {len(mine)}")


def _target(wish: Wish, facts: Facts, held: Mapping[TopicPartition, Held], source: Source) -> Position:
    """Up to where each partition is read, whatever of it has to be."""
    store = facts.position
    if wish.to == STORE and wish.table in facts.tables:
        return store
    if wish.to in (STORE, LATEST):
        return source.log.ends(list(held)) | Position(dict.fromkeys(held, 0))
    if is_time(wish.to):
        return _at_time(time_ms(wish.to), held, source)
    named = _named("--to", wish.to, wish.table, held)
    others = [tp for tp in held if tp not in named]
    return Position({**dict.fromkeys(held, 0), **source.log.ends(others), **named})


def _at_time(at_ms: int, held: Mapping[TopicPartition, Held], source: Source) -> Position:
    """By the log's own timestamps, never by a client's clock (FAILURES 32)."""
    found = source.log.at_time(list(held), at_ms)
    return Position({tp: max(found.get(tp, 0), each.first) for tp, each in held.items()})


def _since(wish: Wish, held: Mapping[TopicPartition, Held], source: Source) -> Position:
    own = {tp: each for tp, each in held.items() if tp.topic == wish.table}
    if wish.since == BEGINNING:
        return Position()
    if is_time(wish.since):
        return _at_time(time_ms(wish.since), own, source)
    return _named("--from", wish.since, wish.table, own)


def _named(option: str, text: str, table: str, held: Collection[TopicPartition]) -> Position:
    """The offsets that *text* names: of every partition of *table*, and of others of *held* if it likes."""
    own = sorted(tp for tp in held if tp.topic == table)
    if text.isdecimal() and text.isascii():
        if len(own) != 1:
            raise UsageError(f"{option} {text}: {table} has {len(own)} partitions, so name each ({own[0]}:{text},…)")
        return Position({own[0]: int(text)})
    try:
        position = Position.parse(text)
    except BadPosition:
        position = Position()
    if not position:
        words = "beginning" if option == "--from" else "store, latest"
        raise UsageError(
            f"{option} is {words}, an offset, a position (orders/0:120,orders/1:98) or a time, not {text!r}"
        )
    missing = [tp for tp in own if tp not in position]
    if missing:
        raise UsageError(f"{option} names no offset of {missing[0]}: name every partition of {table}")
    beyond = [tp for tp in position if tp not in held]
    if beyond:
        raise UsageError(f"{option} names {min(beyond)}, which the store does not hold")
    return position


def capped(plan: ReplayPlan, tables: Collection[str]) -> ReplayPlan:
    """*plan*, of these tables only."""
    return replace(plan, begin=plan.begin.of(set(tables)), target=plan.target.of(set(tables)))
