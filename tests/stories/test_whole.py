"""What takes the way past the graph: the graph would have let go of it at once."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from merganser.consumers.atomic import Atomicity, Entry, Place
from merganser.consumers.whole import Labelled, set_apart
from merganser.schemas.headers import Condition, Marks
from merganser.schemas.position import TopicPartition

#: Of each write: its transaction (0 is none), its partition of a topic, its key (None: none that can be read),
#: whether it is conditional.
keys = st.one_of(st.integers(0, 6), st.integers(0, 20).map(lambda n: n or None))
writes = st.tuples(st.integers(0, 4), st.sampled_from("ab"), st.integers(0, 1), keys, st.integers(0, 19).map(bool))


@given(st.lists(writes, max_size=40), st.integers(0, 12), st.integers(0, 12), st.sets(st.integers(0, 3), max_size=1))
def test_what_need_not_wait_the_graph_lets_go_at_once(
    drawn: list[tuple[int, str, int, int | None, bool]], before: int, after: int, unheld: set[int]
) -> None:
    """*before* were read earlier, *after* are not read yet, and a partition may not be held here."""
    partitions = [TopicPartition(topic, p) for topic in "ab" for p in range(2)]
    held = [tp for n, tp in enumerate(partitions) if n not in unheld]
    counts: dict[int, Counter[TopicPartition]] = defaultdict(Counter)
    for tx, topic, partition, _, _ in drawn:
        counts[tx][TopicPartition(topic, partition)] += 1
    entries, ends = [], dict.fromkeys(partitions, 0)
    for tx, topic, partition, key, plain in drawn:
        tp = TopicPartition(topic, partition)
        condition = None if plain else Condition("present")
        marks = Marks(f"t{tx}", counts[tx], condition) if tx else Marks(condition=condition)
        entries.append(Entry(Place(tp, ends[tp]), 0, b"", b"", marks, key if key is None else (key,)))
        ends[tp] += 1
    entries = [entry for entry in entries if entry.place.partition in held]
    earlier, now = entries[:before], entries[before : len(entries) - after]

    graph = Atomicity()
    graph.offer(earlier, dict.fromkeys(held, 0))
    waiting_before = graph.held
    by_topic: dict[str, list[Entry]] = defaultdict(list)
    for entry in now:
        by_topic[entry.place.partition.topic].append(entry)
    labelled = {topic: _labelled(mine) for topic, mine in by_topic.items()}
    apart = set_apart(labelled, held, graph.open, graph.keys)
    passes = [
        entry for topic, mine in by_topic.items() for i, entry in enumerate(mine) if i not in apart.waiting[topic]
    ]

    first: dict[str, Place] = {}
    for entry in passes:
        assert entry.marks.condition is None
        if entry.marks.tx is not None:
            first[entry.marks.tx] = min(first.get(entry.marks.tx, entry.place), entry.place)
    assert first == apart.whole
    units = graph.offer(now, dict.fromkeys(held, 1000))
    released = {entry.place for unit in units for entry in unit.entries}
    assert {entry.place for entry in passes} <= released
    others = {identity for entry in [*waiting_before, *now] if entry not in passes for identity in entry.identities}
    assert not others & {identity for entry in passes for identity in entry.identities}


def _labelled(entries: list[Entry]) -> Labelled:
    return Labelled(
        [entry.place.partition.partition for entry in entries],
        [entry.place.offset for entry in entries],
        [entry.key_values for entry in entries],
        [entry.marks.tx for entry in entries],
        {i: entry.marks for i, entry in enumerate(entries) if entry.marks != Marks(entry.marks.tx)},
    )


def test_most_of_a_stream_of_whole_transactions_needs_no_decision() -> None:
    tp = TopicPartition("a", 0)
    entries = [
        Entry(Place(tp, n), 0, b"", b"", Marks(f"t{n // 10}", {tp: 10} if n % 10 == 0 else None), (n,))
        for n in range(105)
    ]
    apart = set_apart({"a": _labelled(entries)}, [tp], (), None)
    assert apart.waiting == {"a": list(range(100, 105))} and len(apart.whole) == 10
