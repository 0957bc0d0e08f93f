"""A broker that dies and comes back: questions wait, and their answers are right or errors."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import merganser as mg
from merganser.pipeline.broker import LocalBroker
from merganser.schemas.errors import LogUnavailable, NotFreshEnough
from support.waiting import wait_for

ROW = {"type": "record", "name": "row", "fields": [{"name": "id", "type": "long"}]}


class Asker(threading.Thread):
    """Asks for the ends of a topic, again and again."""

    def __init__(self, log: mg.Log, topic: str) -> None:
        super().__init__(daemon=True)
        self._log, self._at = log, mg.TopicPartition(topic, 0)
        self._stopping = threading.Event()
        self.answers: list[int] = []
        self.refusals: list[str] = []
        self.start()

    def run(self) -> None:
        while not self._stopping.wait(0.1):
            try:
                self._log.versions("shot_ducks-value")
                self.answers.append(self._log.ends([self._at])[self._at])
            except LogUnavailable as error:
                self.refusals.append(str(error))

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def test_after_a_broker_crash_ends_are_asked_by_the_new_leader_epoch(own_broker: LocalBroker) -> None:
    """librdkafka's ListOffsets keeps the old epoch (refused for ever), or answers -1001 without an error."""
    with mg.connect(own_broker.status().bootstrap_servers, timeout_s=5) as log:
        log.create_table("shot_ducks", ROW, partitions=1)
        with log.producer() as producer:
            producer.put("shot_ducks", {"id": 1})
        asker = Asker(log, "shot_ducks")
        try:
            wait_for("a first answer", lambda: bool(asker.answers))
            for pid in own_broker.status().pids:
                os.kill(pid, signal.SIGKILL)
            wait_for("a refusal", lambda: bool(asker.refusals))
            own_broker.start(wait_s=120)
            before = len(asker.answers)
            wait_for("an answer again", lambda: len(asker.answers) > before)
        finally:
            asker.stop()
    assert set(asker.answers) == {1}


def test_a_strong_read_waits_for_a_silent_broker_no_longer_than_its_own_timeout(
    own_broker: LocalBroker, tmp_path: Path
) -> None:
    with mg.connect(own_broker.status().bootstrap_servers, timeout_s=120) as log:
        log.create_table("mute_ducks", ROW, partitions=1)
        with mg.Replica(tmp_path / "replica.duckdb", log, "g", ["mute_ducks"]) as replica, paused(own_broker):
            refused: list[str] = []

            def ask() -> None:
                try:
                    replica.query("SELECT * FROM mute_ducks", level="strong", timeout=1)
                except (LogUnavailable, NotFreshEnough) as error:
                    refused.append(str(error))

            threading.Thread(target=ask, daemon=True).start()
            wait_for("the query to give up", lambda: bool(refused), timeout_s=9)  # the socket would, after 10 s
            assert not replica.query("SELECT * FROM mute_ducks")  # what is here can be read all the same


@contextmanager
def paused(broker: LocalBroker) -> Iterator[None]:
    """Its connections stay, and nothing answers."""
    pids = broker.status().pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
