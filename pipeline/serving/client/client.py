"""Client: SQL on replicas at their addresses, with the same words as on a Replica.

Invariants
- What a query has seen, a later one at ``level="session"`` never unsees, whichever address answers: the client
  remembers the position of every answer and asks for it as a token.
- A query is sent elsewhere only when that cannot make two of it matter: it reads, so it may run twice.
- An answer is whole or an error: Arrow's own end is looked for.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote as quoted
from urllib.parse import urlsplit

import pyarrow as pa
import urllib3

from ....consumers.asked import check_params
from ....consumers.lookup import row_of
from ....consumers.result import Result
from ....schemas import errors
from ....schemas.errors import MerganserError, NoReplica, NotFreshEnough, ServiceError, UsageError
from ....schemas.kafka import Deadline
from ....schemas.position import Position
from ..marks import APPLIED, POSITION, TYPES
from ..params import spelled
from .alive import ANSWER_S, watchful

if TYPE_CHECKING:
    from ....consumers.asked import Level, Params

T = TypeVar("T")

_CONNECT_S = 3.0

#: A node ends a request in time by itself; this much later nobody believes in it any more.
_SLACK_S = 5.0

_LONGEST_ERROR = 1 * 2**20

#: What a node says when another one may do better.
_ELSEWHERE = frozenset({421, 502, 503})

#: How long an address that did not answer is asked last.
_SHUNNED_S = 10.0

#: The errors that a node may have one of our clients raise: those that say what was wrong with the question.
_RAISED: Mapping[str, type[MerganserError]] = {
    name: getattr(errors, name)
    for name in (
        *(
            "UsageError",
            "BadQuery",
            "NotAllowed",
            "UnknownTable",
            "NotHeld",
            "BadPosition",
            "TableStopped",
            "NotFreshEnough",
        ),
        *("TooBusy", "TooLarge", "QueryTimeout", "QueryCancelled", "LoginFailed", "TooManyLogins", "Forbidden"),
    )
}


class Client:
    """Asks the replica at one of *addresses* that is there and fresh enough; the first one is preferred.

    *auth* is ``(user, password)``, or a token. *ca* is a PEM file with the authority that signed the replicas'
    certificates, if the system does not know it. Safe across threads; not across a fork. In asyncio call it through
    ``asyncio.to_thread``. Close it, or use it in a ``with``.

    NoReplica if none answers; else the errors of ``Replica.query``.
    """

    def __init__(
        self,
        addresses: Sequence[str] | str,
        auth: tuple[str, str] | str | None = None,
        *,
        ca: str | Path | None = None,
    ) -> None:
        self._addresses = [_checked(a) for a in ([addresses] if isinstance(addresses, str) else addresses)]
        if not self._addresses:
            raise UsageError("a client needs an address: http://host:8080")
        self._headers = {"Accept": "application/vnd.apache.arrow.stream", **_authorization(auth)}
        self._probes, self._http = self._pools(ca), self._pools(ca)
        if len(self._addresses) > 1:  # else there is nobody else to ask
            watchful(self._http, self._alive)
        self._lock = threading.Lock()
        self._seen = Position()
        self._shunned: dict[str, float] = {}
        self._applied: dict[str, Position] = {}
        self._keys: dict[str, dict[str, str]] = {}

    @property
    def seen(self) -> Position:
        """Up to where this client has seen the log: what ``level="session"`` asks for."""
        with self._lock:
            return self._seen

    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        level: Level = "eventual",
        after: Position | str | None = None,
        max_staleness: float | None = None,
        timeout: float = 30.0,
    ) -> Result:
        """The rows of one SELECT; arguments as in ``Replica.query``. *timeout* is for all addresses together."""
        check_params(params)
        token = _token(after)
        read = self.seen if level == "session" else Position()
        question = {"sql": sql, "params": _spelled(params), "level": level, "max_staleness": max_staleness}
        question["after"] = str(token | read) or None
        result = self._answered(question, token | read, Deadline(timeout))
        with self._lock:
            self._seen = self._seen | result.position
        return result

    def get(
        self,
        table: str,
        key: Mapping[str, Any],
        *,
        level: Level = "eventual",
        after: Position | str | None = None,
        max_staleness: float | None = None,
        timeout: float = 30.0,
    ) -> dict[str, Any] | None:
        """The row of *key*, or None; as ``Replica.get``."""
        sql, params = row_of(table, key, self._key_of(table, timeout))
        result = self.query(sql, params, level=level, after=after, max_staleness=max_staleness, timeout=timeout)
        rows = result.rows()
        return dict(zip(result.columns, rows[0], strict=True)) if rows else None

    def tables(self, timeout: float = 30.0) -> list[dict[str, Any]]:
        """The tables that may be read, with key and columns."""
        found = self.ask("GET", "/tables", timeout=timeout)
        tables: list[dict[str, Any]] = found["tables"]
        return tables

    def status(self, timeout: float = 30.0) -> dict[str, Any]:
        """How the replica is that answers first."""
        found: dict[str, Any] = self.ask("GET", "/status", timeout=timeout)
        return found

    # -- what else a node offers ---------------------------------------------------------------

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = 30.0) -> Any:
        """What a node says to a request other than a query, as JSON has it. Only a GET is tried elsewhere."""
        headers = {**self._headers, "Accept": "application/json"}

        def once(address: str, deadline: Deadline) -> Any:
            with self._send(method, address + path, headers, body, deadline) as response:
                return _json(response)

        return self._somewhere(once, self._order(), Deadline(timeout), elsewhere=method == "GET")

    def stream(self, path: str, *, timeout: float = 30.0) -> urllib3.BaseHTTPResponse:
        """What the first address that answers sends at *path*, to be read. Close it."""

        def once(address: str, deadline: Deadline) -> urllib3.BaseHTTPResponse:
            return self._send("GET", address + path, self._headers, None, deadline)

        return self._somewhere(once, self._order(), Deadline(timeout))

    def close(self) -> None:
        self._http.clear()
        self._probes.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- one question ------------------------------------------------------------------------

    def _answered(self, question: Mapping[str, Any], target: Position, deadline: Deadline) -> Result:
        order = self._order()
        if target and len(order) > 1:
            order = self._fresh_first(order, target, deadline)
        waits = bool(target) or question["level"] in ("strong", "bounded")

        def once(address: str, deadline: Deadline) -> Result:
            # Who may have to wait leaves some of the time for the others.
            share = deadline.left_s / (len(order) - order.index(address)) if waits else deadline.left_s
            body = {**question, "timeout": max(0.05, share)}
            with self._send("POST", address + "/query", self._headers, body, deadline) as response:
                result = _result(response)
            with self._lock:
                self._applied[address] = result.applied
            if not result.applied.reaches(target):  # whoever answered: it is not to be shown
                raise ServiceError(f"{address} gave an older answer than was asked for")
            return result

        return self._somewhere(once, order, deadline)

    def _fresh_first(self, order: Sequence[str], target: Position, deadline: Deadline) -> list[str]:
        """The addresses in *order*, those first that are known, or say, to have applied *target*."""
        fresh = []
        for address in order:
            with self._lock:
                known = self._applied.get(address, Position())
            if known.reaches(target) or self._position_of(address, deadline).reaches(target):
                fresh.append(address)
                break  # one is enough
        return fresh + [address for address in order if address not in fresh]

    def _position_of(self, address: str, deadline: Deadline) -> Position:
        """The applied position there; nothing if it does not say."""
        headers = {**self._headers, "Accept": "application/json"}
        try:
            with self._send("GET", address + "/position", headers, None, deadline) as response:
                return Position.parse(_json(response)["applied"])
        except (MerganserError, urllib3.exceptions.HTTPError, KeyError, TypeError):
            return Position()

    def _key_of(self, table: str, timeout: float) -> dict[str, str]:
        """The key columns of *table*, each with its SQL type."""
        with self._lock:
            known = self._keys.get(table)
        if known is None:
            found = self.ask("GET", f"/tables/{quoted(table, safe='')}", timeout=timeout)
            types = {column["name"]: column["type"] for column in found["columns"]}
            known = {name: types[name] for name in found["key"]}
            if not known:
                raise UsageError(f"table {table!r} has no key; use query")
            with self._lock:
                self._keys[table] = known
        return known

    def _pools(self, ca: str | Path | None) -> urllib3.PoolManager:
        return urllib3.PoolManager(
            num_pools=max(4, len(self._addresses)),
            maxsize=16,
            retries=False,
            ca_certs=None if ca is None else str(ca),
            cert_reqs="CERT_REQUIRED",
            ssl_minimum_version=ssl.TLSVersion.TLSv1_2,
        )

    def _alive(self, url: str) -> bool:
        """Whether a node says anything at all."""
        try:
            return self._probes.request("GET", url + "/livez", timeout=ANSWER_S).status > 0
        except urllib3.exceptions.HTTPError:
            return False

    # -- which address -----------------------------------------------------------------------

    def _order(self) -> list[str]:
        """The addresses as they were given, but those last that did not answer of late."""
        now_s = time.monotonic()
        with self._lock:
            return sorted(self._addresses, key=lambda address: self._shunned.get(address, 0.0) > now_s)

    def _somewhere(
        self,
        once: Callable[[str, Deadline], T],
        order: Sequence[str],
        deadline: Deadline,
        elsewhere: bool = True,
    ) -> T:
        """What *once* gives at the first of *order* that answers. NoReplica; or the last error that one had."""
        told: MerganserError | None = None
        silent: list[str] = []
        for number, address in enumerate(order):
            if number and (deadline.passed or not elsewhere):
                break
            try:
                try:
                    return once(address, deadline)
                except urllib3.exceptions.ProtocolError:
                    if not elsewhere or deadline.passed:
                        raise
                    return once(address, deadline)  # a connection that was kept had been closed meanwhile
            except _Refused as refused:
                if not refused.elsewhere:
                    raise refused.error from None
                told = refused.error
            except (urllib3.exceptions.HTTPError, pa.ArrowException, OSError) as error:
                silent.append(f"{address}: {_why(error)}")
                with self._lock:
                    self._shunned[address] = time.monotonic() + _SHUNNED_S
        raise told or NoReplica("; ".join(silent))

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None, deadline: Deadline
    ) -> urllib3.BaseHTTPResponse:
        """The response, whose body is to be read; _Refused if it is an error."""
        patience = urllib3.Timeout(connect=min(_CONNECT_S, deadline.left_s + 0.1), read=deadline.left_s + _SLACK_S)
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        sent = {**headers, **({} if data is None else {"Content-Type": "application/json"})}
        response = self._http.request(method, url, body=data, headers=sent, timeout=patience, preload_content=False)
        if response.status >= 300:
            with response:
                raise _Refused(response.status, _error(response))
        return response


class _Refused(Exception):
    """An error that a node told of."""

    def __init__(self, status: int, error: MerganserError) -> None:
        super().__init__(status)
        self.error = error
        self.elsewhere = status in _ELSEWHERE or isinstance(error, NotFreshEnough)


def _result(response: urllib3.BaseHTTPResponse) -> Result:
    """The answer in *response*."""
    with pa.ipc.open_stream(response) as reader:
        table = reader.read_all()
    if response.read(1):  # else it would be cut off, or be something else
        raise ServiceError("more came than an answer")
    told = table.schema.metadata or {}
    try:
        types = json.loads(told[TYPES])
        position, applied = (Position.parse(told[name].decode()) for name in (POSITION, APPLIED))
    except (KeyError, ValueError, MerganserError) as error:
        raise ServiceError("what answered is no Merganser node") from error
    return Result(table.replace_schema_metadata(None), types, position, applied)


def _json(response: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(response.read())
    except ValueError as error:
        raise ServiceError("what answered is no Merganser node") from error


def _error(response: urllib3.BaseHTTPResponse) -> MerganserError:
    """What a node's answer of an error says, as the error that it had."""
    try:
        told = json.loads(response.read(_LONGEST_ERROR))
        kind, facts = _RAISED.get(told["code"]), told["fields"]
        known = getattr(kind, "__dataclass_fields__", None)
        if kind is not None and known is not None:
            error = kind(**{name: value for name, value in facts.items() if name in known})
        else:
            error = (kind or ServiceError)(told["error"])
        return error.hinted(str(told["hint"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServiceError(f"the node answered with status {response.status}")


def _why(error: Exception) -> str:
    """One line, without the picture of objects that urllib3 has in it."""
    reason = getattr(error, "reason", None) or error
    text = str(reason).rpartition(">: ")[2] or type(error).__name__
    return " ".join(text.split())[:200]


def _checked(address: str) -> str:
    """*address* without a slash at its end. UsageError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"not an address of a node: {address!r} (http://host:8080)")
    if parts.username or parts.password:
        raise UsageError("an address holds no password: say auth=(user, password)")
    return address.rstrip("/")


def _authorization(auth: tuple[str, str] | str | None) -> dict[str, str]:
    if auth is None:
        return {}
    if isinstance(auth, str):
        return {"Authorization": f"Bearer {auth}"}
    user, password = auth
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _token(after: object) -> Position:
    """The position that *after* is, or spells. UsageError, BadPosition."""
    if isinstance(after, str):
        return Position.parse(after)
    if after is None:
        return Position()
    if not isinstance(after, Mapping):
        raise UsageError(f"{after!r} is no token: flush() and .position give one")
    return Position(after)


def _spelled(params: Params) -> Any:
    if params is None or isinstance(params, Mapping):
        return params and {str(name): spelled(value) for name, value in params.items()}
    return [spelled(value) for value in params]
