"""What a reader makes of librdkafka's errors."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from merganser.consumers.kafka import KafkaReader
from merganser.consumers.log import Poll
from merganser.schemas.position import TopicPartition


class Event:
    """A message that is no record."""

    def __init__(self, error: int) -> None:
        self._error = KafkaError(error)

    def error(self) -> KafkaError:
        return self._error

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("error", "truncated"), [(KafkaError._LOG_TRUNCATION, True), (KafkaError.OFFSET_OUT_OF_RANGE, False)]
)
def test_a_problem_says_whether_the_log_is_known_to_be_truncated(error: int, truncated: bool) -> None:
    reader, poll = KafkaReader({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "g"), Poll()
    try:
        event: Any = Event(error)
        reader._note(event, poll)
    finally:
        reader.close()
    [problem] = poll.problems
    assert (problem.partition, problem.truncated) == (TopicPartition("t", 3), truncated)
