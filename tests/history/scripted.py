"""A history in one process, step by step: a writer and the clients of one replica, and the checker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import merganser as mg
from history.checker import Findings, check
from history.fold import read_log
from history.journal import Journal, Plan, load, published
from history.reader import Clients
from history.run import new_plan
from history.writer import Writer, open_accounts
from merganser.consumers.apply import BatchLimits


class Script:
    """What a test plays by hand."""

    def __init__(self, plan: Plan, replica: mg.Replica, clients: Clients) -> None:
        self.plan, self.replica, self.clients = plan, replica, clients
        self._stop = threading.Event()
        self._publisher = threading.Thread(target=self._publish)
        self._publisher.start()
        self.writer = Writer(plan, 0, 1)
        self.writer.recover()

    def _publish(self) -> None:
        """Scans without end; writers learn by them what is in the accounts."""
        while not self._stop.is_set():
            self.clients.scan("eventual", publish_it=True)

    @property
    def token(self) -> list[int]:
        told = published(Path(self.plan.folder) / "token0.json")
        assert told is not None
        return told["token"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self._stop.set()
        self._publisher.join()
        self.writer.producer.close()
        self.writer.log.close()

    def judge(self) -> Findings:
        return check(load(self.plan), *read_log(self.plan))


@contextmanager
def script(servers: str, folder: Path) -> Iterator[Script]:
    """Record by record, so that there are many states in which part of a transaction has come."""
    plan = new_plan(servers, folder, writers=1)
    open_accounts(plan)
    batches = BatchLimits(records=1, poll_records=1)
    with (
        mg.connect(servers) as log,
        mg.Replica(folder / "replica0.duckdb", log, plan.tag, plan.tables, batches=batches) as replica,
    ):
        played = Script(plan, replica, Clients(plan, 0, Journal(folder / "replica0-1.journal"), replica, log, 1))
        try:
            yield played
        finally:
            played.close()
