"""What an answer takes of memory and disk is given back, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.guard.spool import Room, Spool
from merganser.schemas.errors import MerganserError, QueryCancelled, QueryTimeout

BATCH = pa.record_batch({"n": list(range(1000))})
SMALL = ServingLimits(answer_memory=BATCH.nbytes)


def expired(spool: Spool) -> None:
    spool.fail(QueryTimeout("to read the answer", 1))


@pytest.mark.parametrize("memory", [1, BATCH.nbytes], ids=["on disk", "in memory"])
@pytest.mark.parametrize("ends", [expired, Spool.close])
def test_nothing_is_kept_once_nobody_wants_it(tmp_path: Path, memory: int, ends: Callable[[Spool], None]) -> None:
    limits = ServingLimits(answer_memory=memory)
    room = Room(tmp_path, limits, head_room=0)
    spool = Spool(BATCH.schema, limits, room)
    spool.put(BATCH)
    ends(spool)
    with pytest.raises((QueryTimeout, QueryCancelled)):
        spool.put(BATCH)  # the query had not stopped yet
    assert (room._memory, room._disk) == (8 * memory, limits.spool)


def test_batches_come_out_in_order_each_once_and_what_ended_the_query_last(tmp_path: Path) -> None:
    room = Room(tmp_path, SMALL, head_room=0)
    spool = Spool(BATCH.schema, SMALL, room)
    batches = [pa.record_batch({"n": [i] * 1000}) for i in range(5)]
    for batch in batches:
        spool.put(batch)
    spool.end(MerganserError("it broke"))
    assert [spool.take(1) for _ in batches] == batches
    with pytest.raises(MerganserError, match="it broke"):
        spool.take(1)
    spool.close()
    assert (room._memory, room._disk) == (8 * SMALL.answer_memory, SMALL.spool)
