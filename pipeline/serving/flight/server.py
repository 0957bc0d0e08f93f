"""The Flight SQL door: commands in, answers of the guard out.

A query runs when its FlightInfo is asked for, which says the position that it was read at (in its schema too: ADBC
shows nothing else of it); the ticket in it fetches the answer, once, for the same user. Nothing here decides what may
be read: the guard does.

Invariants
- No bytes that a client sends end a thread or the process: what is not understood is answered by an error.
- What a client holds (prepared statements, tickets) is bounded, its own, and ages out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import TracebackType
from typing import Any

import pyarrow as pa
from pyarrow import flight

from ....consumers.asked import level_named
from ....schemas.errors import MerganserError, UsageError
from ....schemas.position import Position
from ..guard.answer import Answer, portions
from ..guard.ask import Ask, seconds
from ..guard.describe import Described
from ..guard.guard import Guard
from ..marks import marked
from ..users.binding import Address, name_of
from . import catalog, messages
from .access import Calls, Doorkeeper, Logins, Open, Who, headers_of
from .failures import answered, flight_error
from .handles import Handles

#: How long a prepared statement is kept after its last use, and how many are.
STATEMENT_S = 1800.0
_MOST_STATEMENTS = 1000

#: How long an answer waits for who asked to fetch it.
_FETCH_S = 30.0

#: Clients take messages of 16 MiB or more; what a batch is cut into is well below.
_MESSAGE_BYTES = 4 * 2**20

#: Longer ones are not sent as a header: gRPC refuses 8 KiB of them.
_HEADER_BYTES = 4096

_FRESHNESS = ("merganser-level", "merganser-after", "merganser-max-staleness", "merganser-timeout")

_READ_ONLY = "a replica is read-only: rows are written through the log (`merganser put`, a Producer)"
_NO_TRANSACTIONS = "there are no transactions here: each query reads one committed state"


@dataclass(frozen=True)
class Prepared:
    """A statement of a client's, and the parameters that it is bound to."""

    sql: str
    described: Described
    params: list[Any] | dict[str, Any] | None = None


class FlightDoor:
    """Serves *guard* at *host*:*port* (0: any free one) until it is closed.

    *logins* checks users; without it everybody is *anonymous*. *tls* is a certificate and its key, as PEM.
    UsageError if the address cannot be had.
    """

    def __init__(
        self,
        guard: Guard,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        logins: Logins | None = None,
        anonymous: Who | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        scheme = "grpc+tcp" if tls is None else "grpc+tls"
        address = Address(host, port)
        keeper = Doorkeeper(logins, anonymous)
        try:
            self._server = _Server(guard, keeper, f"{scheme}://{address}", tls)
        except (pa.ArrowException, OSError) as error:
            raise address.refused(" ".join(str(error).split())) from error
        self.host, self.port = host, int(self._server.port)
        self.url = f"{scheme}://{Address(host, self.port)}"

    def close(self) -> None:
        """Take no more calls. Those under way end with the guard's answers, which is to be closed before."""
        self._server.forget()
        # gRPC waits for every call, also for one whose client does not read: not longer than this.
        ending = threading.Thread(target=self._server.shutdown, name="merganser-flight-end", daemon=True)
        ending.start()
        ending.join(5)

    def __enter__(self) -> FlightDoor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self, guard: Guard, keeper: Doorkeeper, location: str, tls: tuple[bytes, bytes] | None) -> None:
        certificates = None if tls is None else [flight.CertKeyPair(*tls)]
        middleware = {"call": Calls(keeper.sessions)}
        self._guard, self._keeper = guard, keeper
        self._catalog = guard.replica.path.stem
        self._statements: Handles[Prepared] = Handles(_MOST_STATEMENTS, STATEMENT_S, lambda gone: None)
        # The guard has fewer answers open than this: the others are over, and go before one that is still being read.
        most, idle_s = 4 * guard.limits.answers, guard.limits.answer_s + _FETCH_S
        self._answers: Handles[Answer] = Handles(most, idle_s, Answer.close, over=lambda answer: answer.over)
        super().__init__(location, Open(), certificates, middleware=middleware)

    def forget(self) -> None:
        self._statements.clear()
        self._answers.clear()

    # -- asking ------------------------------------------------------------------------------

    @answered
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        who = self._keeper.who(context)
        name, command = _command(descriptor)
        if name in _METADATA:
            return _info(_METADATA[name](command), descriptor, bytes(descriptor.command))
        answer = self._guard.ask(self._asked(who, name, command, context), tables=who.tables, user=name_of(who))
        answer.expire(_FETCH_S)
        handle = self._answers.add(who.name, answer)
        ticket = messages.pack(messages.make("TicketStatementQuery", statement_handle=handle))
        _tell(context, answer)
        return _info(_schema(answer), descriptor, ticket, str(answer.position))

    @answered
    def get_schema(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.SchemaResult:
        who = self._keeper.who(context)
        name, command = _command(descriptor)
        if name in _METADATA:
            return flight.SchemaResult(_METADATA[name](command))
        if name == "CommandPreparedStatementQuery":
            described = self._prepared(who, command.prepared_statement_handle).described
        else:
            ask = self._asked(who, name, command, context)
            described = self._guard.describe(ask, tables=who.tables, user=name_of(who))
        return flight.SchemaResult(catalog.with_digits(described.schema))

    @answered
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        who = self._keeper.who(context)
        name, command = messages.unpack(ticket.ticket)
        if name in _METADATA:
            return flight.RecordBatchStream(self._metadata(who, name, command))
        if name != "TicketStatementQuery":
            raise messages.BadMessage(f"{name} is no ticket")
        answer = self._answers.get(who.name, command.statement_handle)
        if answer is None or not answer.fetch():
            raise flight.FlightServerError("no such answer: it was fetched already, has expired, or is another user's")
        _tell(context, answer)
        return flight.GeneratorStream(_schema(answer), _sent(answer))

    def _asked(self, who: Who, name: str, command: Any, context: flight.ServerCallContext) -> Ask:
        """What a command asks of the guard, as fresh as the call's headers say."""
        if name == "CommandStatementQuery":
            if command.transaction_id:
                raise flight.FlightServerError(_NO_TRANSACTIONS)
            ask = Ask(command.query)
        elif name == "CommandPreparedStatementQuery":
            prepared = self._prepared(who, command.prepared_statement_handle)
            ask = Ask(prepared.sql, prepared.params)
        else:
            raise flight.FlightServerError(_READ_ONLY if "Update" in name or "Ingest" in name else f"{name}: only SQL")
        return fresh(ask, headers_of(context))

    def _prepared(self, who: Who, handle: bytes) -> Prepared:
        found = self._statements.get(who.name, handle)
        if found is None:
            raise flight.FlightServerError(
                "no such prepared statement: it was closed, or has expired; prepare it again"
            )
        return found

    # -- metadata ----------------------------------------------------------------------------

    def _metadata(self, who: Who, name: str, command: Any) -> pa.Table:
        match name:
            case "CommandGetSqlInfo":
                return catalog.sql_info(command.info, version("merganser"), pa.__version__, int(STATEMENT_S * 1000))
            case "CommandGetXdbcTypeInfo":
                return catalog.xdbc_types(command)
            case "CommandGetCatalogs":
                return catalog.catalogs(self._catalog)
            case "CommandGetTableTypes":
                return catalog.table_types()
            case "CommandGetDbSchemas":
                return catalog.schemas(command, self._catalog, self._guard.tables(who.tables))
            case "CommandGetPrimaryKeys":
                return catalog.primary_keys(command, self._catalog, self._guard.tables(who.tables))
            case "CommandGetTables":
                found = self._guard.tables(who.tables)
                return catalog.tables(command, self._catalog, found, self._guard.arrow_schemas(found).__getitem__)
            case _:
                return catalog.no_foreign_keys()

    # -- prepared statements, and what else is not a query -----------------------------------------

    @answered
    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        who = self._keeper.who(context)
        name, command = _command(descriptor)
        if name != "CommandPreparedStatementQuery":
            raise flight.FlightServerError(_READ_ONLY)
        handle = command.prepared_statement_handle
        prepared = self._prepared(who, handle)
        bound = replace(prepared, params=_bound(prepared.described, reader, self._guard.limits.sql_chars))
        self._statements.replace(who.name, handle, bound)

    @answered
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        who = self._keeper.who(context)
        body = action.body.to_pybytes() if action.body is not None else b""
        match action.type:
            case "CreatePreparedStatement":
                return [self._prepare(who, _unpacked(body, "ActionCreatePreparedStatementRequest"), context)]
            case "ClosePreparedStatement":
                request = _unpacked(body, "ActionClosePreparedStatementRequest")
                self._statements.take(who.name, request.prepared_statement_handle)
                return []
            case "CancelFlightInfo":
                status = self._cancel(who, messages.parse("CancelFlightInfoRequest", body).info)
                return [messages.make("CancelFlightInfoResult", status=status).SerializeToString()]
            case "CancelQuery":
                status = self._cancel(who, _unpacked(body, "ActionCancelQueryRequest").info)
                return [messages.pack(messages.make("ActionCancelQueryResult", result=status))]
            case "CloseSession":
                token = headers_of(context).get("authorization", "").partition(" ")[2]
                self._keeper.sessions.end(token)
                return [messages.make("CloseSessionResult", status=messages.CLOSED).SerializeToString()]
            case "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint":
                raise flight.FlightServerError(_NO_TRANSACTIONS)
            case _:
                raise flight.FlightServerError(f"no such action: {action.type[:100]!r}")

    def _prepare(self, who: Who, request: Any, context: flight.ServerCallContext) -> bytes:
        if request.transaction_id:
            raise flight.FlightServerError(_NO_TRANSACTIONS)
        headers = headers_of(context)
        ask = fresh(Ask(request.query), headers)
        described = self._guard.describe(ask, tables=who.tables, user=name_of(who))
        java = "grpc-java" in headers.get("user-agent", "")
        parameters = catalog.in_milliseconds(described.parameter_schema) if java else described.parameter_schema
        handle = self._statements.add(who.name, Prepared(request.query, described))
        result = messages.make(
            "ActionCreatePreparedStatementResult",
            prepared_statement_handle=handle,
            dataset_schema=catalog.with_digits(described.schema).serialize().to_pybytes(),
            parameter_schema=parameters.serialize().to_pybytes(),
        )
        return messages.pack(result)

    def _cancel(self, who: Who, info: bytes) -> int:
        """Cancel the answer that a FlightInfo is of."""
        try:
            tickets = [endpoint.ticket.ticket for endpoint in flight.FlightInfo.deserialize(info).endpoints]
        except (pa.ArrowException, ValueError, OSError) as error:
            raise messages.BadMessage("not a FlightInfo") from error
        cancelled = False
        for ticket in tickets[:10]:
            name, command = messages.unpack(ticket)
            answer = self._answers.get(who.name, command.statement_handle) if name == "TicketStatementQuery" else None
            if answer is not None:
                answer.cancel()
                cancelled = True
        return messages.CANCELLED if cancelled else messages.NOT_CANCELLABLE

    @answered
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        self._keeper.who(context)
        return iter(())

    @answered
    def do_exchange(self, context: flight.ServerCallContext, descriptor: Any, reader: Any, writer: Any) -> None:
        self._keeper.who(context)
        raise flight.FlightServerError(_READ_ONLY)

    @answered
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        self._keeper.who(context)
        return [
            ("CreatePreparedStatement", "Prepare a query."),
            ("ClosePreparedStatement", "Forget a prepared query."),
            ("CancelFlightInfo", "Cancel a query."),
            ("CancelQuery", "Cancel a query, as older clients do."),
            ("CloseSession", "Log out."),
        ]


def fresh(ask: Ask, headers: Mapping[str, str]) -> Ask:
    """*ask* as fresh as *headers* say. UsageError."""
    for name in headers:
        if name.startswith("merganser-") and name not in _FRESHNESS:
            raise UsageError(f"unknown header {name[:50]!r}: one of {', '.join(_FRESHNESS)}")
    level = level_named(headers.get("merganser-level", "eventual"))
    staleness, timeout = (seconds(n, headers.get(n)) for n in ("merganser-max-staleness", "merganser-timeout"))
    after = Position.parse(headers["merganser-after"]) if headers.get("merganser-after") else None
    asked = replace(ask, level=level, after=after, max_staleness=staleness)
    return asked if timeout is None else replace(asked, timeout=timeout)


def _command(descriptor: flight.FlightDescriptor) -> tuple[str, Any]:
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise messages.BadMessage("ask by a Flight SQL command, not by a path")
    return messages.unpack(descriptor.command)


def _unpacked(body: bytes, wanted: str) -> Any:
    name, request = messages.unpack(body)
    if name != wanted:
        raise messages.BadMessage(f"{name} in the place of {wanted}")
    return request


def _info(schema: pa.Schema, descriptor: Any, ticket: bytes, said: str = "") -> flight.FlightInfo:
    endpoint = flight.FlightEndpoint(flight.Ticket(ticket), [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1, app_metadata=said)


def _schema(answer: Answer) -> pa.Schema:
    return marked(catalog.with_digits(answer.schema), answer.types, answer.position, answer.applied)


def _tell(context: flight.ServerCallContext, answer: Answer) -> None:
    """Which state the answer is of, as headers."""
    for name, position in (("merganser-position", answer.position), ("merganser-applied", answer.applied)):
        if len(text := str(position)) <= _HEADER_BYTES // 2:
            context.add_header(name, text)


def _sent(answer: Answer) -> Iterator[pa.RecordBatch]:
    """The batches of *answer* in portions that every client takes. Ended early, it is closed all the same."""
    try:
        for batch in answer.batches():
            yield from portions(batch, _MESSAGE_BYTES)
    except MerganserError as error:
        raise flight_error(error) from None
    finally:
        answer.close()


def _bound(
    described: Described, reader: flight.MetadataRecordBatchReader, most: int
) -> list[Any] | dict[str, Any] | None:
    """The parameters that a client sends: one row, in the statement's order."""
    rows: list[pa.RecordBatch] = []
    for chunk in reader:
        if chunk.data is not None and chunk.data.num_rows:
            rows.append(chunk.data)
        if sum(batch.num_rows for batch in rows) > 1:
            raise UsageError("one row of parameters at a time")
        if sum(int(batch.nbytes) for batch in rows) > 16 * most:
            raise UsageError("the parameters are too long")
    names = [parameter.name for parameter in described.parameters]
    if not rows:
        return None
    [row] = rows
    if row.num_columns != len(names):
        raise UsageError(f"the statement has {len(names)} parameters, {row.num_columns} were sent")
    values = [_param(column) for column in row.columns]
    return values if all(name.isdecimal() for name in names) else dict(zip(names, values, strict=True))


def _param(column: pa.Array) -> Any:
    """The value in *column*. Python's times end at microseconds: one with more is text, which DuckDB casts."""
    if (pa.types.is_timestamp(column.type) or pa.types.is_time64(column.type)) and column.type.unit == "ns":
        number = column.cast(pa.int64())[0].as_py()
        unit = pa.timestamp("us", column.type.tz) if pa.types.is_timestamp(column.type) else pa.time64("us")
        column = column.cast(pa.string()) if number is not None and number % 1000 else column.cast(unit)
    return column[0].as_py()


_METADATA = {
    "CommandGetSqlInfo": lambda command: catalog.SQL_INFO,
    "CommandGetXdbcTypeInfo": lambda command: catalog.XDBC_TYPES,
    "CommandGetCatalogs": lambda command: catalog.CATALOGS,
    "CommandGetDbSchemas": lambda command: catalog.SCHEMAS,
    "CommandGetTables": lambda command: catalog.TABLES_WITH_SCHEMA if command.include_schema else catalog.TABLES,
    "CommandGetTableTypes": lambda command: catalog.TABLE_TYPES,
    "CommandGetPrimaryKeys": lambda command: catalog.PRIMARY_KEYS,
    "CommandGetExportedKeys": lambda command: catalog.FOREIGN_KEYS,
    "CommandGetImportedKeys": lambda command: catalog.FOREIGN_KEYS,
    "CommandGetCrossReference": lambda command: catalog.FOREIGN_KEYS,
}
