"""Naive variants, as first versions are; the checkers have to catch each. Numbers are of FAILURES; without one, of
doors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition as KafkaPartition

from merganser.consumers.atomic import Atomicity
from merganser.consumers.replica import Replica
from merganser.pipeline.log import Log
from merganser.pipeline.serving.client.client import Client
from merganser.producers.commit import SendFailed, TransactionalClient
from merganser.schemas.errors import CommitInDoubt, MerganserError, NoReplica, ProducerFenced
from merganser.schemas.position import Position

#: Sets an attribute of an object, by its name, for as long as the fault lasts.
Patch = Callable[[Any, str, Any], None]


def no_wait(patch: Patch) -> None:
    """1: a commit that returned is taken for one that is visible: nobody waits for its token."""
    query = Replica.query

    def at_once(self: Replica, sql: str, params: Any = None, *, after: Any = None, **named: Any) -> Any:
        return query(self, sql, params, **named)

    patch(Replica, "query", at_once)


def stable_end(patch: Patch) -> None:
    """2: a strong read waits for the last stable offset, as ``read_committed`` clients are told the end."""

    def ends(self: Log, partitions: Any, timeout_s: float | None = None) -> Position:
        asked = {"bootstrap.servers": self.bootstrap_servers, "group.id": "x", "isolation.level": "read_committed"}
        consumer = KafkaConsumer(asked)
        try:
            return Position(
                {tp: consumer.get_watermark_offsets(KafkaPartition(*tp), timeout=10)[1] for tp in partitions}
            )
        finally:
            consumer.close()

    patch(Log, "ends", ends)


def seen_at_once(patch: Patch) -> None:
    """5 and 9: each record is applied as it comes, whatever its manifest says."""
    patch(Atomicity, "_whole", lambda self, open_, position: True)


def lose_answers(patch: Patch) -> None:
    """No fault, but an occasion: every third commit is made, and its answer is lost."""
    end, count = TransactionalClient._end, [0]

    def unanswered(self: TransactionalClient, client: Any, tx: str) -> None:
        end(self, client, tx)
        count[0] += 1
        if count[0] % 3 == 0:
            self.close()
            raise CommitInDoubt(tx, "the answer was lost")

    patch(TransactionalClient, "_end", unanswered)


def doubt_is_abort(patch: Patch) -> None:
    """6: a commit in doubt is taken for one that failed, and run again without an operation id."""
    from history.writer import Writer

    lose_answers(patch)
    patch(Writer, "doubt_is_abort", True)


def forgetful(patch: Patch) -> None:
    """7: an operation is known within a batch only."""
    from merganser.consumers import ledger

    patch(ledger, "known", lambda con, entries: [])


def timeout_is_fencing(patch: Patch) -> None:
    """8: a transaction that took too long is taken for a newer producer of the same id."""

    def fenced(self: TransactionalClient, client: Any, tx: str, failed: SendFailed) -> MerganserError:
        self.close()
        self._fenced = True
        return ProducerFenced(self._id)

    patch(TransactionalClient, "_rolled_back", fenced)


def token_dropped(patch: Patch) -> None:
    """The HTTP door reads the token that comes with a query, and does not hand it on."""
    from merganser.pipeline.serving.http import querying

    asked = querying.asked

    def without(request: Any) -> Any:
        found = asked(request)
        return replace(found, ask=replace(found.ask, after=None))

    patch(querying, "asked", without)


def level_dropped(patch: Patch) -> None:
    """The Flight SQL door takes each level for ``eventual``."""
    from merganser.pipeline.serving.flight import server

    fresh = server.fresh
    patch(server, "fresh", lambda ask, headers: replace(fresh(ask, headers), level="eventual"))


def session_of_a_node(patch: Patch) -> None:
    """A client with several addresses is one client after the other, each with a session of its own."""
    query = Client.query

    def one_by_one(self: Client, sql: str, params: Any = None, **asked: Any) -> Any:
        if len(self._addresses) == 1:
            return query(self, sql, params, **asked)
        clients = self.__dict__.setdefault("_one_by_one", [Client(address) for address in self._addresses])
        for client in clients[:-1]:
            with suppress(NoReplica):
                return query(client, sql, params, **asked)
        return query(clients[-1], sql, params, **asked)

    patch(Client, "query", one_by_one)


FAULTS: dict[str, Callable[[Patch], None]] = {
    "no-wait": no_wait,
    "stable-end": stable_end,
    "seen-at-once": seen_at_once,
    "doubt-is-abort": doubt_is_abort,
    "forgetful": forgetful,
    "timeout-is-fencing": timeout_is_fencing,
    "token-dropped": token_dropped,
    "level-dropped": level_dropped,
    "session-of-a-node": session_of_a_node,
}


def install(fault: str) -> None:
    """For as long as this process lives."""
    FAULTS[fault](setattr)
