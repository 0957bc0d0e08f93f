"""A reader ends in bounded time, whether a broker answers or not."""

from __future__ import annotations

import threading

import pytest

from merganser.consumers import kafka
from merganser.consumers.kafka import KafkaReader


def test_a_reader_does_not_wait_for_a_broker_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka may wait a minute for its last commit of offsets: long enough for an orchestrator to kill the node."""
    answered, closed = threading.Event(), threading.Event()

    class Waiting:
        def close(self) -> None:
            answered.wait()
            closed.set()

    monkeypatch.setattr(kafka, "_CLOSE_S", 0.05)
    reader = KafkaReader({"bootstrap.servers": "127.0.0.1:1"}, "g")
    reader._consumer.close()
    reader._consumer = Waiting()  # type: ignore[assignment]
    reader.close()
    assert not closed.is_set()
    answered.set()
    assert closed.wait(10)
