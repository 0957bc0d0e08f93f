"""Closed segments on their way into the archive: published one after the other, in the order they were closed.

One worker encodes, uploads and publishes. Invariants: at most so many wait; what became of each is told once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from ...schemas.errors import TopicRecreated
from ...schemas.position import TopicPartition
from .publisher import Course
from .rolling import OpenSegment

#: ``overtaken``: another archiver was first, or an unanswered try of ours; ``recreated``: the topic is another now.
Outcome = Literal["published", "overtaken", "recreated"]

#: Segments that may wait for the worker, the one that it has included.
_ROOM = 2


class Outbox:
    """Used by the thread that closes segments. *publish* is the worker's: False if it was overtaken."""

    def __init__(self, publish: Callable[[Course, OpenSegment], bool]) -> None:
        self._publish = publish
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="merganser-publish")
        self._sent: deque[tuple[Course, Future[bool]]] = deque()

    @property
    def full(self) -> bool:
        return len(self._sent) >= _ROOM

    def put(self, course: Course, segment: OpenSegment) -> None:
        self._sent.append((course, self._worker.submit(self._publish, course, segment)))

    def take(self, wait: bool) -> tuple[Course, Outcome] | None:
        """The oldest one, and what became of it; None if none is there, or (without *wait*) done. What else the
        worker met is raised."""
        if not self._sent or not (wait or self._sent[0][1].done()):
            return None
        course, sent = self._sent.popleft()
        try:
            return course, "published" if sent.result() else "overtaken"
        except TopicRecreated:
            return course, "recreated"

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Wait for what is there of *partitions*; whatever came of it, the chain knows."""
        kept: deque[tuple[Course, Future[bool]]] = deque()
        for course, sent in self._sent:
            if course.tp not in partitions:
                kept.append((course, sent))
            elif not isinstance(error := sent.exception(), (TopicRecreated, type(None))):
                raise error
        self._sent = kept

    def has(self, course: Course) -> bool:
        return any(sent is course for sent, _ in self._sent)

    def close(self) -> None:
        self._worker.shutdown()
