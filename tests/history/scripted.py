"""A history in one process, step by step: a writer and the clients of one replica, and the checker. With doors, there
may be a second node for a while, which is the faster one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import merganser as mg
from history.checker import Findings, check
from history.fold import read_log
from history.journal import Journal, Plan, load, published
from history.reader import Clients
from history.run import new_plan
from history.ways import ports, ways
from history.writer import Writer, open_accounts
from merganser.consumers.apply import BatchLimits


class Script:
    """What a test plays by hand."""

    def __init__(self, plan: Plan, replica: mg.Replica, clients: Clients, applying: threading.Event) -> None:
        self.plan, self.replica, self.clients = plan, replica, clients
        self.applying = applying
        """While it is not set, the replica applies nothing."""
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

    @contextmanager
    def second_node(self) -> Iterator[None]:
        path = Path(self.plan.folder) / "replica1.duckdb"
        with mg.Replica(path, self.clients.log, f"{self.plan.tag}-1", self.plan.tables) as replica:
            with ways(self.plan, 1, replica, self.clients.log):
                yield

    def close(self) -> None:
        self.applying.set()
        self._stop.set()
        self._publisher.join()
        self.writer.producer.close()
        self.writer.log.close()

    def judge(self) -> Findings:
        return check(load(self.plan), *read_log(self.plan))


@contextmanager
def script(servers: str, folder: Path, doors: bool = False) -> Iterator[Script]:
    """Record by record, so that there are many states in which part of a transaction has come."""
    applying = threading.Event()
    applying.set()

    def hold(step: str) -> None:
        applying.wait()

    with ExitStack() as stack:
        plan = new_plan(servers, folder, writers=1, ports=stack.enter_context(ports(2 if doors else 0)))
        open_accounts(plan)
        log = stack.enter_context(mg.connect(servers))
        replica = mg.Replica(
            folder / "replica0.duckdb",
            log,
            plan.tag,
            plan.tables,
            batches=BatchLimits(records=1, poll_records=1),
            on_step=hold,
        )
        stack.enter_context(replica)
        opened = stack.enter_context(ways(plan, 0, replica, log))
        clients = Clients(plan, 0, Journal(folder / "replica0-1.journal"), replica, log, 1, opened)
        played = Script(plan, replica, clients, applying)
        stack.callback(played.close)
        yield played
