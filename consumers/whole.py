"""Transactions that came whole and touch nothing that waits: they need no decision. Pure.

What ``atomic.py`` keeps of each record costs many times what its row does. A replica far behind reads whole
transactions, mostly, which write keys that nothing else it has just read does. Those are applied as if
they were plain records; all the rest goes through the decision.

Invariant: what is not *waiting* here, ``atomic.py`` would release at once, in any order. Its transactions
have all records that their manifests name in the partitions held here, nothing of them has a condition or
an operation id, and none of its keys is written by any other record at hand or held back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..schemas.headers import Manifest, Marks
from ..schemas.position import TopicPartition
from .atomic import Identity, KeyValues, Place


class Labelled(NamedTuple):
    """Records of one topic, a list for each fact. *keys* are what each key says, see :class:`Entry`; *marks* are
    of those that say more than their transaction's id, by index."""

    partitions: Sequence[int]
    offsets: Sequence[int]
    keys: Sequence[KeyValues | None]
    txs: Sequence[str | None]
    marks: Mapping[int, Marks]


@dataclass
class Apart:
    """*waiting* are the records, by topic and index, that have to be decided on; *whole* the transactions of
    which none is among them, each with the place of its first record."""

    waiting: dict[str, list[int]] = field(default_factory=dict)
    whole: dict[str, Place] = field(default_factory=dict)


def set_apart(
    topics: Mapping[str, Labelled],
    position: Container[TopicPartition],
    open_: Container[str],
    held: Container[Identity] | None,
) -> Apart:
    """Which of the records of *topics* have to be decided on.

    *position* has the partitions held here, *open_* the transactions of which records are held back, *held*
    the keys of those records, if there are any.
    """
    firsts = _firsts(topics)
    unfit = {tx for tx in firsts if tx in open_} | _unfit(topics, position)
    single: dict[str, set[int]] = {}
    for topic, records in topics.items():
        single[topic] = _sharing(topic, records, held) | {i for i, marks in records.marks.items() if _guarded(marks)}
        unfit.update(tx for i in single[topic] if (tx := records.txs[i]) is not None)
    waiting = {
        topic: [i for i, tx in enumerate(records.txs) if tx in unfit or i in single[topic]]
        for topic, records in topics.items()
    }
    return Apart(waiting, {tx: first for tx, first in firsts.items() if tx not in unfit})


def _guarded(marks: Marks) -> bool:
    return bool(marks.condition or marks.ops or marks.no_row)


def _firsts(topics: Mapping[str, Labelled]) -> dict[str, Place]:
    """The first place of each transaction."""
    firsts: dict[str, Place] = {}
    for topic, records in topics.items():
        # The last of equal ones wins, so in reverse order the first one does.
        places = zip(reversed(records.txs), reversed(records.partitions), strict=True)
        for (tx, partition), offset in dict(zip(places, reversed(records.offsets), strict=True)).items():
            if tx is not None:
                place = Place(TopicPartition(topic, partition), offset)
                firsts[tx] = min(firsts.get(tx, place), place)
    return firsts


def _unfit(topics: Mapping[str, Labelled], position: Container[TopicPartition]) -> set[str]:
    """The transactions that lack records, or say themselves that they are guarded."""
    manifests: dict[str, Manifest] = {}
    arrived: Counter[tuple[str | None, TopicPartition]] = Counter()
    unfit: set[str] = set()
    for topic, records in topics.items():
        for (tx, partition), count in Counter(zip(records.txs, records.partitions, strict=True)).items():
            arrived[tx, TopicPartition(topic, partition)] = count
        for marks in records.marks.values():
            if marks.tx is not None and marks.manifest is not None:
                manifests.setdefault(marks.tx, marks.manifest)
                if marks.guarded:
                    unfit.add(marks.tx)
    unfit |= {tx for tx, _ in arrived if tx is not None and tx not in manifests}
    for tx, manifest in manifests.items():
        if any(tp in position and arrived[tx, tp] < count for tp, count in manifest.items()):
            unfit.add(tx)
    return unfit


def _sharing(topic: str, records: Labelled, held: Container[Identity] | None) -> set[int]:
    """The records whose key another record at hand has too, or one that is held back."""
    keys = list(zip(records.partitions, records.keys, strict=True))
    again = {key for key, count in Counter(keys).items() if count > 1}
    if held is None:
        return {i for i, key in enumerate(keys) if key in again and key[1] is not None} if again else set()
    return {
        i
        for i, (partition, key) in enumerate(keys)
        if key is not None and ((partition, key) in again or (TopicPartition(topic, partition), key) in held)
    }
