"""``LocalBroker``: start or reuse, stop, and look at the Kafka of one home."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...schemas.errors import BrokerError
from . import config, process
from .admin import Admin
from .config import Cluster, Node
from .home import Folders, merganser_home
from .jars import ensure_jars, kafka_version, locked_jars
from .java import class_cache, command, run
from .logs import last_words
from .progress import Progress, stderr_progress

TURN_WAIT_S = 600  # another starter may be fetching jars over a slow line
ANSWER_WAIT_S = 3
PATIENCE_S = 0.5
MAKING_WAIT_S = 180  # a recorded node writes its classes when it ends, for six seconds on a machine at rest
PORT_WAIT_S = 3  # a node that was just killed holds its ports until the kernel has cleared it away
PORTS = range(20_000, 30_000)  # below the ports that systems hand out to clients, so that they stay ours
MAIN_CLASS = "kafka.Kafka"
FORMAT_CLASS = "kafka.tools.StorageTool"


@dataclass(frozen=True)
class BrokerStatus:
    """What is known of the local broker at one moment."""

    running: bool
    bootstrap_servers: str
    brokers: int
    pids: tuple[int, ...]
    cluster_id: str
    home: Path
    kafka_version: str
    data_bytes: int = 0
    resident_bytes: int = 0
    problems: tuple[str, ...] = ()


class LocalBroker:
    """The Kafka of one home. Holds no state of its own: all of it is in the home and the process table."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home.absolute() if home else merganser_home()
        self._folders = Folders(self.home)

    def start(self, brokers: int | None = None, wait_s: float = 60, progress: Progress | None = None) -> BrokerStatus:
        """Start Kafka, or reuse what runs, and return when its admin API answers.

        ``brokers`` is 1 or 3, and what the home has when left out (1 in a new home). ``wait_s`` bounds
        the wait for an answer; fetching the jars the first time has its own bounds.
        """
        say = progress or Progress()
        if brokers is not None and brokers not in config.SIZES:
            raise BrokerError(f"{brokers} brokers cannot be had: 1 or 3", hint="`--brokers 1` or `--brokers 3`")
        with self._turn(say):
            cluster = self._load()
            _check_size(cluster, brokers, self._folders)
            pids, problems = self._running(cluster)
            for problem in problems:
                say.say(problem)
            if cluster is None or not self._reused(cluster, pids, wait_s):
                cluster, pids = self._launch(cluster, brokers or 1, self._alive(pids), wait_s, say)
        return self._describe(cluster, pids, problems)

    def stop(self, wait_s: float = 30) -> BrokerStatus:
        """End Kafka cleanly; after ``wait_s``, by force, which ``problems`` then tells. Data stays."""
        with self._turn(Progress()):
            cluster = self._load()
            pids, problems = self._running(cluster)
            killed = self._end(pids, wait_s)
            self._folders.pids.unlink(missing_ok=True)
        return self._describe(cluster, {}, (*problems, *killed))

    def status(self) -> BrokerStatus:
        """A look without a touch: starts, stops and repairs nothing."""
        cluster = self._load()
        pids, problems = self._running(cluster)
        if cluster and pids:
            missing = [node.id for node in cluster.nodes if node.id not in pids]
            problems += tuple(f"node {node} does not run" for node in missing)
            if not Admin(cluster).answers(ANSWER_WAIT_S):
                problems += (f"Kafka does not answer at {cluster.bootstrap_servers}",)
        return self._describe(cluster, pids, problems)

    # -- steps of a start --------------------------------------------------------------------

    def _reused(self, cluster: Cluster, pids: Mapping[int, int], wait_s: float) -> bool:
        """Whether all nodes run, and answer. A node may be in the midst of dying: then it is no longer there."""
        if len(pids) < len(cluster.nodes):
            return False
        try:
            self._await_answer(cluster, pids, {}, wait_s)
        except BrokerError:
            if self._alive(pids) == pids:
                raise
            return False
        return True

    def _launch(
        self, cluster: Cluster | None, brokers: int, pids: dict[int, int], wait_s: float, say: Progress
    ) -> tuple[Cluster, dict[int, int]]:
        pinned = locked_jars()
        jars = ensure_jars(pinned, self._folders.jars, say)
        _ensure_class_cache(jars, say)
        if cluster is None:
            say.say(f"formatting {brokers} node(s) in {self._folders.broker}")
            cluster = self._format(plan(brokers, kafka_version(pinned)), jars)
        asleep = [node for node in cluster.nodes if node.id not in pids]
        _check_ports(asleep)
        if not pids:
            shutil.rmtree(self._folders.tmp, ignore_errors=True)  # unpacked libraries of killed nodes
        say.say(f"starting Apache Kafka {kafka_version(pinned)} at {cluster.bootstrap_servers}")
        logs_from = {node.id: _size(self._folders.log(node.id)) for node in asleep}
        started: dict[int, int] = {}
        try:
            for node in asleep:
                started[node.id] = self._spawn(cluster, node, jars, class_cache(jars).flags())
                self._remember({**pids, **started})
            self._await_answer(cluster, {**pids, **started}, logs_from, wait_s)
        except BrokerError:
            self._end(started, wait_s=5)
            self._remember(pids)
            raise
        return cluster, {**pids, **started}

    def _format(self, cluster: Cluster, jars: Sequence[Path]) -> Cluster:
        """Format all nodes in a scratch folder and move it into place by one rename."""
        for left_over in self._folders.broker.glob("formatting-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix="formatting-", dir=self._folders.broker))
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda node: self._format_node(cluster, node, scratch, jars), cluster.nodes))
            (scratch / self._folders.cluster.name).write_text(cluster.to_json(), encoding="utf-8")
            scratch.chmod(0o755)
            scratch.rename(self._folders.data)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return cluster

    def _format_node(self, cluster: Cluster, node: Node, scratch: Path, jars: Sequence[Path]) -> None:
        properties = scratch / f"node-{node.id}.properties"
        data = scratch / self._folders.node_data(node.id).name
        properties.write_text(config.render(config.server_properties(cluster, node, data)), encoding="ascii")
        arguments = ("format", "--cluster-id", cluster.cluster_id, "--config", str(properties))
        done = run(jars, self._folders.tmp, FORMAT_CLASS, *arguments)
        if done.returncode:
            raise BrokerError(f"formatting node {node.id} failed: {last_words('', done.stdout + done.stderr)}")
        properties.unlink()

    def record(self, jars: Sequence[Path], classes: Path) -> None:
        """Start and stop a node of a new home, and leave what it loaded in the file *classes*; BrokerError."""
        self._folders.broker.mkdir(parents=True)
        cluster = self._format(plan(1, kafka_version(locked_jars())), jars)
        (node,) = cluster.nodes
        pids = {node.id: self._spawn(cluster, node, jars, ["-XX:TieredStopAtLevel=4", f"-XX:AOTCacheOutput={classes}"])}
        try:
            self._await_answer(cluster, pids, {}, MAKING_WAIT_S)
        except BaseException:
            self._end(pids, wait_s=0)
            raise
        for killed in self._end(pids, MAKING_WAIT_S):
            raise BrokerError(killed)

    def _spawn(self, cluster: Cluster, node: Node, jars: Sequence[Path], flags: Sequence[str]) -> int:
        at = self._folders
        properties, log4j = at.config(node.id), at.log4j(node.id)
        for folder in (properties.parent, at.log(node.id).parent, at.tmp):
            folder.mkdir(parents=True, exist_ok=True)
        server = config.server_properties(cluster, node, at.node_data(node.id))
        _write_whole(properties, config.render(server))
        _write_whole(log4j, config.render(config.log4j2_properties(at.log(node.id))))
        flags = [*config.heap_flags(len(cluster.nodes)), f"-Dlog4j2.configurationFile={log4j}", *flags]
        line = command(jars, at.tmp, flags, MAIN_CLASS, str(properties))
        return process.spawn(line, at.console(node.id), cwd=at.broker)

    def _await_answer(
        self, cluster: Cluster, pids: Mapping[int, int], logs_from: Mapping[int, int], wait_s: float
    ) -> None:
        """Return when every node is in the cluster's own list. A node that ends, or too long a wait, is an error."""
        admin = Admin(cluster)
        deadline = time.monotonic() + wait_s
        while not admin.answers(PATIENCE_S):
            for node, pid in pids.items():
                if not self._is_node(pid, node):
                    raise BrokerError(
                        f"node {node} ended while starting: {self._words(node, logs_from)}",
                        hint=self._see(node),
                    )
            if time.monotonic() >= deadline:
                node = min(pids)
                words = self._words(node, logs_from)
                raise BrokerError(
                    f"no answer at {cluster.bootstrap_servers} within {wait_s:g} s; last in its log: {words}",
                    hint=self._see(node),
                )

    # -- what is there -----------------------------------------------------------------------

    def _load(self) -> Cluster | None:
        path = self._folders.cluster
        try:
            return Cluster.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not self._folders.data.exists():
                return None
            why = "it is missing"
        except (ValueError, OSError) as error:
            why = str(error)
        raise BrokerError(
            f"{path} cannot be read: {why}",
            hint=f"this home is damaged: put the file back, or move {self._folders.data} aside to begin anew",
        )

    def _running(self, cluster: Cluster | None) -> tuple[dict[int, int], tuple[str, ...]]:
        """Node → pid of what runs, and a line for each pid that was noted and is no longer ours."""
        if cluster is None:
            return {}, ()
        noted = _read_pids(self._folders.pids)
        pids: dict[int, int] = {}
        stale: list[str] = []
        for node in (node.id for node in cluster.nodes):
            pid = noted.get(node)
            if pid is not None and not self._is_node(pid, node):
                stale.append(f"node {node}: the noted pid {pid} is stale (it is {process.name_of(pid)} now)")
                pid = None
            found = pid or process.find_running(str(self._folders.config(node)))
            if found:
                pids[node] = found
        return pids, tuple(stale)

    def _is_node(self, pid: int, node: int) -> bool:
        return process.is_running(pid, str(self._folders.config(node)))

    def _remember(self, pids: Mapping[int, int]) -> None:
        _write_whole(self._folders.pids, json.dumps({str(node): pid for node, pid in pids.items()}) + "\n")

    def _words(self, node: int, logs_from: Mapping[int, int]) -> str:
        log = _read_from(self._folders.log(node), logs_from.get(node, 0))
        return last_words(log, _read_from(self._folders.console(node), 0))

    def _see(self, node: int) -> str:
        return f"the whole story is in {self._folders.log(node)}"

    def _describe(self, cluster: Cluster | None, pids: Mapping[int, int], problems: Sequence[str]) -> BrokerStatus:
        empty = BrokerStatus(False, "", 0, (), "", self.home, kafka_version(locked_jars()), problems=tuple(problems))
        if cluster is None:
            return empty
        return replace(
            empty,
            running=bool(pids),
            bootstrap_servers=cluster.bootstrap_servers,
            brokers=len(cluster.nodes),
            pids=tuple(pids[node] for node in sorted(pids)),
            cluster_id=cluster.cluster_id,
            data_bytes=_tree_bytes(self._folders.data),
            resident_bytes=sum(process.resident_bytes(pid) for pid in pids.values()),
        )

    # -- steps of a stop ---------------------------------------------------------------------

    def _end(self, pids: Mapping[int, int], wait_s: float) -> tuple[str, ...]:
        """SIGTERM to all, and SIGKILL to those that live on after ``wait_s``."""
        for node, pid in pids.items():
            process.end(pid, str(self._folders.config(node)), signal.SIGTERM)
        process.wait_until(lambda: not self._alive(pids), time.monotonic() + wait_s)
        stubborn = self._alive(pids)
        for node, pid in stubborn.items():
            process.end(pid, str(self._folders.config(node)), signal.SIGKILL)
        process.wait_until(lambda: not self._alive(pids), time.monotonic() + wait_s)
        return tuple(
            f"node {node} (pid {pid}) did not end within {wait_s:g} s and was killed; its next start checks its logs"
            for node, pid in stubborn.items()
        )

    def _alive(self, pids: Mapping[int, int]) -> dict[int, int]:
        return {node: pid for node, pid in pids.items() if self._is_node(pid, node)}

    @contextmanager
    def _turn(self, say: Progress) -> Iterator[None]:
        waiting = "waiting for another process that starts or stops this broker"
        with process.exclusive(self._folders.lock, TURN_WAIT_S, lambda: say.say(waiting)):
            yield


def ensure_local_broker() -> str:
    """The bootstrap servers of this home's broker, which is started if it does not run."""
    return LocalBroker().start(progress=stderr_progress()).bootstrap_servers


def _ensure_class_cache(jars: Sequence[Path], say: Progress) -> None:
    """Make the cache of Kafka's classes, unless it is there or could not be made before."""
    cache, why = class_cache(jars), None
    if cache.settled:
        return
    waiting = "waiting for another process that prepares Kafka"
    try:
        with process.exclusive(cache.lock, TURN_WAIT_S, lambda: say.say(waiting)):
            if not cache.settled:
                say.say("preparing quick starts of Apache Kafka, once")
                with tempfile.TemporaryDirectory(prefix="merganser-") as home:
                    why = cache.make(partial(LocalBroker(Path(home)).record, jars))
    except OSError as error:  # the jars may lie where only others write
        why = str(error)
    if why is not None:
        say.say(f"no quick starts, so Kafka takes some seconds more each time: {why}")


def plan(brokers: int, version: str) -> Cluster:
    """A new cluster with a random id, on ports of its own."""
    cluster_id = base64.urlsafe_b64encode(b"\x4d" + secrets.token_bytes(15)).decode().rstrip("=")
    return config.plan_cluster(cluster_id, version, free_ports(2 * brokers))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, drawn at random: homes formatted side by side get different ones."""
    found: list[int] = []
    for port in random.sample(PORTS, k=len(PORTS)):
        if len(found) == count:
            return found
        if process.port_is_free(port):
            found.append(port)
    raise BrokerError(
        f"no {count} free ports between {PORTS.start} and {PORTS.stop}", hint="end programs that listen there"
    )


def _check_size(cluster: Cluster | None, asked: int | None, folders: Folders) -> None:
    if cluster and asked and asked != len(cluster.nodes):
        raise BrokerError(
            f"{folders.home} holds data of {len(cluster.nodes)} broker(s), and {asked} were asked for",
            hint=f"`--brokers {len(cluster.nodes)}` uses it; another MERGANSER_HOME begins anew",
        )


def _check_ports(nodes: Sequence[Node]) -> None:
    deadline = time.monotonic() + PORT_WAIT_S
    for node in nodes:
        for port in node.ports:
            if not process.wait_until(partial(process.port_is_free, port), deadline):
                raise BrokerError(
                    f"port {port} of node {node.id} is taken by {process.port_holder(port)}",
                    hint="end that program, or use another MERGANSER_HOME: a home keeps its ports",
                )


def _read_pids(path: Path) -> dict[int, int]:
    try:
        return {int(node): int(pid) for node, pid in json.loads(path.read_text(encoding="utf-8")).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}  # the process table is asked in any case


def _write_whole(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_from(path: Path, offset: int) -> str:
    """What was written to a log after ``offset``; all of it if the log was rolled meanwhile."""
    if not path.exists():
        return ""
    whole = path.read_bytes()
    return (whole[offset:] if len(whole) >= offset else whole).decode("utf-8", "replace")


def _tree_bytes(root: Path) -> int:
    """Bytes that the files take on the disk (Kafka's index files are long and mostly holes)."""
    total = 0
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
