"""The way to a Kafka cluster: what every client of it is configured with, and the questions asked of it.

Each call is bounded and ends in LogUnavailable, never in a hang. librdkafka's log lines go to the
Python logger ``merganser.kafka``, which is silent until the application gives it a handler.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported, but not by name
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from .errors import LogUnavailable, NotPermitted, UsageError
from .position import Position, TopicPartition

T = TypeVar("T")
Setting = str | int | float | bool

logger = logging.getLogger("merganser.kafka")
logger.addHandler(logging.NullHandler())

_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

#: Settings of a topic that decide whether a replica of it can be whole, or a new topic hold its records.
TOPIC_SETTINGS = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "delete.retention.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "max.message.bytes",
)


@dataclass(frozen=True)
class Connection:
    """Where the log is and how to reach it. Safe to share between threads and to pickle.

    *security* is passed to librdkafka as it is: ``security.protocol``, ``sasl.*``, ``ssl.*``.
    """

    bootstrap_servers: str
    security: Mapping[str, Setting] = field(default_factory=dict, repr=False)  # holds passwords
    registry: str | None = field(default=None, repr=False)  # its URL may hold one
    client_id: str = "merganser"

    def client_config(self) -> dict[str, Any]:
        """The settings common to producers, consumers and admin clients."""
        return {
            "client.id": self.client_id,  # brokers have quotas by it, so it may be another
            **self.security,
            "bootstrap.servers": self.bootstrap_servers,
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 2_000,  # the default of 10 s makes recovery feel hung
            "error_cb": log_error,
            "logger": logger,
        }


def log_error(error: KafkaError) -> None:
    """librdkafka retries these by itself; an operation that gives up says so in its own error."""
    logger.warning("%s: %s", error.name(), error.str())


class Heard:
    """What librdkafka says of its connections while a question waits: why there is no answer, of which the question's
    own error knows only that time has passed."""

    def __init__(self) -> None:
        self.why = ""
        self._telling = -1

    def forget(self) -> None:
        """A new question begins."""
        self.why, self._telling = "", -1

    def note(self, error: KafkaError) -> None:
        """A client's ``error_cb``. What tells most is kept, of several the first: later ones are often cut short."""
        log_error(error)
        telling = _TELLING.get(error.code(), -1)
        if telling > self._telling:
            self._telling = telling
            self.why = error.str().partition(" (after ")[0]


#: What says more than another why no broker answers.
_TELLING = {
    KafkaError._TRANSPORT: 0,
    KafkaError._RESOLVE: 1,
    KafkaError._SSL: 2,
    KafkaError._AUTHENTICATION: 3,
}


def reason(error: BaseException) -> str:
    """One line out of what confluent-kafka raises."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return str(error.args[0].str())
    return str(error) or type(error).__name__


def refused(why: str, code_: int | None) -> UsageError:
    """Kafka's refusal, as *why* tells of it; with the way to the right, if one is missing."""
    error = UsageError(why)
    return error.hinted(NotPermitted.hint) if code_ in NOT_PERMITTED else error


def code(error: BaseException | None) -> int | None:
    """The KafkaError code inside *error*, if there is one."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return int(error.args[0].code())
    return None


class Deadline:
    """A moment by the monotonic clock. Passed down, so that a chain of waits has one bound."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end


class OneProcess:
    """Guards a client against use after fork: librdkafka's threads do not live in the child."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()

    def check(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(f"{self._what} was made before a fork: make one in each process")


class TopicId(NamedTuple):
    """What tells a topic from another of the same name, and whether its keys lie where they lay."""

    topic_id: str
    partitions: int


@dataclass(frozen=True)
class TopicFacts:
    """What the cluster says of one topic. *topic_id* tells it from another of the same name."""

    name: str
    topic_id: str
    partitions: int
    settings: Mapping[str, str]

    @property
    def compacted(self) -> bool:
        return "compact" in self.settings.get("cleanup.policy", "")


@dataclass(frozen=True)
class Member:
    """One of a consumer group: what Kafka calls it, where it is, and what it reads."""

    id: str
    host: str
    partitions: frozenset[TopicPartition]


class Cluster:
    """Questions to one cluster, over one admin client. Safe across threads, not across a fork.

    Blocking: in asyncio call it through ``asyncio.to_thread``.
    """

    def __init__(self, client_config: Mapping[str, Any], timeout_s: float = 15.0) -> None:
        self._config = dict(client_config)
        self._timeout_s = timeout_s
        self._process = OneProcess("this log connection")
        self._heard = Heard()
        config: dict[str, Any] = {**self._config, "error_cb": self._heard.note}
        try:
            self._admin = AdminClient(config)
        except (KafkaException, TypeError, ValueError) as error:
            hint = "docs/guide.md, Where the log is: settings have librdkafka's names, not Java's (sasl.jaas.config)"
            raise UsageError(f"Kafka's client does not take these settings: {reason(error)}").hinted(hint) from error

    @property
    def bootstrap_servers(self) -> str:
        return str(self._config["bootstrap.servers"])

    def cluster_id(self) -> str:
        return str(self._described().cluster_id)

    def brokers(self) -> int:
        return len(self._described().nodes)

    def topics(self) -> list[str]:
        """Every topic that is not Kafka's own, sorted."""
        self._serve_logs()
        try:
            listed = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise self.unavailable(error) from error
        return sorted(name for name in listed if not name.startswith("__"))

    def identify(self, topics: Iterable[str]) -> dict[str, TopicId]:
        """Id and partition count of each topic, by one quick request; an absent topic is absent."""
        names = sorted(set(topics))
        if not names:
            return {}
        self._serve_logs()
        deadline = Deadline(self._timeout_s)
        asked = self._admin.describe_topics(TopicCollection(names), request_timeout=self._timeout_s)
        found = {name: self._answer(future, deadline, f"topic {name!r}") for name, future in asked.items()}
        return {name: TopicId(str(t.topic_id), len(t.partitions)) for name, t in found.items() if t is not None}

    def describe(self, topics: Iterable[str]) -> dict[str, TopicFacts]:
        """Facts of each topic; one that does not exist is absent from the answer."""
        present = self.identify(topics)
        settings = self._settings(list(present), Deadline(self._timeout_s))
        return {
            name: TopicFacts(name, found.topic_id, found.partitions, settings[name])
            for name, found in present.items()
            if name in settings
        }

    def ends(self, partitions: Iterable[TopicPartition], timeout_s: float | None = None) -> Position:
        """High watermarks: everything acknowledged before the call lies below.

        Not the last stable offset, which stays behind acknowledged transactions (FAILURES 2).
        A partition that does not exist is absent. *timeout_s*, if shorter, takes the place of the usual bound.
        """
        return self._offsets(partitions, _LATEST, timeout_s)

    def stable_ends(self, partitions: Iterable[TopicPartition], timeout_s: float | None = None) -> Position:
        """Up to where each partition can be read: to its end, or to the first record of an open transaction."""
        return self._offsets(partitions, _LATEST, timeout_s, IsolationLevel.READ_COMMITTED)

    def starts(self, partitions: Iterable[TopicPartition]) -> Position:
        """The first offset that each partition still holds."""
        return self._offsets(partitions, _EARLIEST)

    def at_time(self, partitions: Iterable[TopicPartition], time_ms: int) -> Position:
        """The first offset of each partition with a timestamp of *time_ms* or later; the end, if there is none."""
        wanted = list(partitions)
        ends = self.ends(wanted)  # first: what is written meanwhile lies beyond, whatever its time
        found = self._offsets(ends, OffsetSpec.for_timestamp(time_ms), none_is=ends)
        return Position({tp: min(offset, ends[tp]) for tp, offset in found.items()})

    def members(self, group: str, timeout_s: float | None = None) -> tuple[Member, ...]:
        """Those who share the partitions of *group* now, by their ids; none if nobody does."""
        self._serve_logs()
        bound_s = min(self._timeout_s, timeout_s or self._timeout_s)
        asked = self._admin.describe_consumer_groups([group], request_timeout=max(1.0, bound_s))
        try:
            found = asked[group].result(timeout=bound_s + 1)
        except KafkaException as error:
            if code(error) == KafkaError.GROUP_ID_NOT_FOUND:
                return ()
            raise self.unavailable(error, f"group {group!r}") from error
        except FutureTimeout as error:
            raise self.unavailable(error) from error
        members = (
            Member(
                each.member_id,
                each.host.lstrip("/"),
                frozenset(TopicPartition(tp.topic, tp.partition) for tp in each.assignment.topic_partitions),
            )
            for each in found.members
        )
        return tuple(sorted(members, key=lambda member: member.id))

    def create_topic(self, name: str, partitions: int, settings: Mapping[str, str]) -> bool:
        """Make a topic with min(3, brokers) replicas; False if it is there already.

        ``min.insync.replicas`` is one less than the replicas, so that one broker may be away.
        """
        replicas = min(3, self.brokers())
        config = {"min.insync.replicas": str(max(1, replicas - 1)), **settings}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=config)
        deadline = Deadline(self._timeout_s)
        made = self._admin.create_topics([topic], request_timeout=self._timeout_s, operation_timeout=self._timeout_s)
        try:
            made[name].result(timeout=deadline.left_s + 1)
        except KafkaException as error:
            if code(error) == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if code(error) in _REFUSED:
                raise UsageError(f"Kafka refused topic {name!r}: {reason(error)}") from error
            raise self.unavailable(error, f"making topic {name!r}") from error
        except FutureTimeout as error:
            raise self.unavailable(error) from error
        self._await_topic(name, partitions, deadline)
        return True

    def close(self) -> None:
        """Nothing to flush: the admin client ends with its last reference."""

    def unavailable(self, error: BaseException, about: str = "the cluster") -> LogUnavailable:
        """*about* what it was asked, in case it is not permitted."""
        why = reason(error)
        if code(error) in NOT_PERMITTED:
            return NotPermitted(self.bootstrap_servers, f"{about}: {why}")
        if isinstance(error, FutureTimeout):
            why = f"no reply within {self._timeout_s:g} s"
        self._admin.poll(0)
        if self._heard.why and (isinstance(error, FutureTimeout) or code(error) in _SILENT):
            why = f"{why} ({self._heard.why})"
        return LogUnavailable(self.bootstrap_servers, why)

    # -- inside ------------------------------------------------------------------------------

    def _serve_logs(self) -> None:
        # librdkafka queues its log lines for whoever polls; an idle admin client has nobody else.
        self._process.check()
        self._admin.poll(0)
        self._heard.forget()

    def _described(self) -> Any:
        self._serve_logs()
        asked = self._admin.describe_cluster(request_timeout=self._timeout_s)
        return self._answer(asked, Deadline(self._timeout_s))

    def _answer(self, future: Future[T], deadline: Deadline, about: str = "the cluster") -> T | None:
        try:
            return future.result(timeout=deadline.left_s + 1)
        except KafkaException as error:
            if code(error) in _ABSENT:
                return None
            raise self.unavailable(error, about) from error
        except FutureTimeout as error:
            raise self.unavailable(error) from error

    def _settings(self, topics: list[str], deadline: Deadline) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        if not topics:
            return found
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
        asked = self._admin.describe_configs(resources, request_timeout=max(1.0, deadline.left_s))
        for resource, future in asked.items():
            answer = self._answer(future, deadline, f"the settings of topic {resource.name!r}")
            if answer is not None:
                found[resource.name] = {key: str(answer[key].value) for key in TOPIC_SETTINGS if key in answer}
        return found

    def _offsets(
        self,
        partitions: Iterable[TopicPartition],
        spec: OffsetSpec,
        timeout_s: float | None = None,
        level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
        none_is: Position | None = None,
    ) -> Position:
        self._serve_logs()
        deadline = Deadline(self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s))
        request = {KafkaPartition(tp.topic, tp.partition): spec for tp in partitions}
        patience_s = max(0.1, min(_FIRST_TRY_S, deadline.left_s))
        while request:
            try:
                return self._offsets_once(request, patience_s, level, none_is)
            except LogUnavailable as error:
                held_back = code(error.__cause__) == KafkaError._TIMED_OUT and patience_s == _FIRST_TRY_S
                patience_s = max(0.1, deadline.left_s)
                if held_back:
                    continue
                if code(error.__cause__) not in _PASSING or deadline.passed:
                    raise
                self._refresh(deadline)
                # "No leaders found" also means that none of the partitions exists.
                if not self._exist(request):
                    break
            time.sleep(min(0.05, deadline.left_s))  # just made, or between two leaders
        return Position()

    def _offsets_once(
        self,
        request: dict[KafkaPartition, Any],
        patience_s: float,
        level: IsolationLevel,
        none_is: Position | None = None,
    ) -> Position:
        deadline = Deadline(patience_s)
        asked = self._admin.list_offsets(request, isolation_level=level, request_timeout=patience_s)
        found = {tp: self._answer(future, deadline, f"topic {tp.topic!r}") for tp, future in asked.items()}
        offsets = {
            TopicPartition(tp.topic, tp.partition): answer.offset for tp, answer in found.items() if answer is not None
        }
        if none_is is not None:  # where -1 is an answer: no record is that late
            return Position({tp: offset if offset >= 0 else none_is[tp] for tp, offset in offsets.items()})
        if any(offset < 0 for offset in offsets.values()):
            # A request that a broker did not answer in time can come back so, without an error.
            unanswered = KafkaException(KafkaError(KafkaError.OFFSET_NOT_AVAILABLE, "no answer"))
            raise self.unavailable(unanswered) from unanswered
        return Position(offsets)

    def _refresh(self, deadline: Deadline) -> None:
        """Look all leaders up anew. librdkafka's offset requests go by the leader epoch that it remembers,
        and when a broker refuses that one, they do not make it look again by themselves."""
        try:
            self._admin.list_topics(timeout=max(0.1, deadline.left_s))
        except KafkaException as error:
            raise self.unavailable(error) from error

    def _exist(self, partitions: Iterable[KafkaPartition]) -> bool:
        found = self.identify({tp.topic for tp in partitions})
        return any(tp.topic in found and tp.partition < found[tp.topic].partitions for tp in partitions)

    def _await_topic(self, name: str, partitions: int, deadline: Deadline) -> None:
        """Wait until every partition of a new topic has a leader that answers."""
        wanted = [TopicPartition(name, number) for number in range(partitions)]
        while len(self.ends(wanted)) < partitions:
            if deadline.passed:
                raise LogUnavailable(self.bootstrap_servers, f"topic {name!r} was made but has no leader yet")
            time.sleep(0.02)


#: A new client's first offset request is now and then held back for three seconds, while one made
#: after it is answered at once.
_FIRST_TRY_S = 0.5

#: What Kafka says of a topic that does not exist, or cannot, by its name.
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_EXCEPTION)

#: What the next look at the topic's leader mends.
_PASSING = (
    KafkaError._NOENT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
)

#: Kafka has answered: who asks has no right to it.
NOT_PERMITTED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)

#: Of which the reason is what was heard of the connections: no broker has answered at all.
_SILENT = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._AUTHENTICATION,
    KafkaError._ALL_BROKERS_DOWN,
)

_REFUSED = (
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
)
