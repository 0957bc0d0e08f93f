"""The Flight SQL door, with pyarrow's own client and with ADBC."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from merganser.pipeline.serving.flight import messages
from merganser.pipeline.serving.flight.access import Credentials, Doorkeeper, Sessions, basic
from merganser.pipeline.serving.flight.handles import Handles
from merganser.pipeline.serving.flight.server import FlightDoor
from merganser.pipeline.serving.guard.answer import portions
from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.pipeline.serving.marks import APPLIED, POSITION, TYPES
from merganser.schemas.errors import MerganserError, TooManyLogins, UsageError
from serving.escapes import BOUNDED, REFUSED, UNGRANTED
from serving.hostile import GROUPS, assault
from serving.world import HIDDEN, ORDERS, World
from support.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:Cannot disable autocommit")


@dataclass(frozen=True)
class User:
    name: str
    tables: frozenset[str] | None = None


class Book:
    """Logins: whoever has the password `pw`; `all` may read everything."""

    def check(self, name: str, password: str, address: str) -> User:
        assert address == "127.0.0.1"
        if password != "pw":
            raise UsageError("user and password do not fit")
        return User(name, None if name == "all" else frozenset({ORDERS}))

    def check_token(self, token: str, address: str) -> User:
        if token != "all.token":
            raise UsageError("no such token")
        return User("all")


class Waiting(Book):
    """Others fail as the same user, from the same address."""

    waits = False

    def check(self, name: str, password: str, address: str) -> User:
        if self.waits:
            raise TooManyLogins(name, 1.0)
        return super().check(name, password, address)


@pytest.fixture(scope="module")
def door(guard: Guard) -> Iterator[FlightDoor]:
    with FlightDoor(guard, logins=Book()) as opened:
        yield opened


@pytest.fixture(scope="module")
def hasty_door(hasty: Guard) -> Iterator[FlightDoor]:
    with FlightDoor(hasty, logins=Book()) as opened:
        yield opened


@contextmanager
def connected(door: FlightDoor, user: str = "all", password: str = "pw", **headers: str) -> Iterator[Any]:
    """An ADBC connection; *headers* go with every call."""
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    said = {prefix + name.replace("_", "-"): value for name, value in headers.items()}
    kwargs = {"username": user, "password": password, **said}
    with adbc.connect(door.url.replace("+tcp", ""), db_kwargs=kwargs) as connection:
        yield connection


def rows(connection: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


class Client:
    """pyarrow's client, and as much of Flight SQL as it takes."""

    def __init__(self, door: FlightDoor, user: str | None = "all", **headers: str) -> None:
        self.flight = flight.FlightClient(door.url)
        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if user is not None:
            sent.append(self.flight.authenticate_basic_token(user, "pw"))
        self.options = flight.FlightCallOptions(headers=sent, timeout=30)

    def info(self, name: str, **fields: Any) -> flight.FlightInfo:
        command = messages.pack(messages.make(name, **fields))
        return self.flight.get_flight_info(flight.FlightDescriptor.for_command(command), self.options)

    def get(self, name: str, **fields: Any) -> pa.Table:
        return self.fetch(self.info(name, **fields))

    def fetch(self, info: flight.FlightInfo) -> pa.Table:
        return self.flight.do_get(info.endpoints[0].ticket, self.options).read_all()

    def sql(self, sql: str) -> pa.Table:
        return self.get("CommandStatementQuery", query=sql)

    def act(self, kind: str, body: bytes) -> list[bytes]:
        return [r.body.to_pybytes() for r in self.flight.do_action(flight.Action(kind, body), self.options)]

    def close(self) -> None:
        self.flight.close()


@pytest.fixture
def client(door: FlightDoor) -> Iterator[Client]:
    with closing(Client(door)) as opened:
        yield opened


def test_rows_and_the_position_that_they_are_of(served: World, client: Client) -> None:
    info = client.info("CommandStatementQuery", query=f"SELECT id, qty FROM {ORDERS} WHERE id = 3")
    assert info.app_metadata.decode() == str(served.end)
    assert client.fetch(info).to_pylist() == [{"id": 3, "qty": 3}]
    with pytest.raises(flight.FlightServerError, match="fetched already"):
        client.fetch(info)


def test_an_adbc_client_reads_the_position_in_the_schema(served: World, door: FlightDoor) -> None:
    prepared = f"SELECT id, qty FROM {ORDERS} WHERE id = ?"
    for sql, params in ((prepared, [3]), ("SELECT 1::BIGINT, 2", None)):
        with connected(door) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            told = cursor.fetch_arrow_table().schema.metadata
        assert told[POSITION].decode() == told[APPLIED].decode() == str(served.end)
        assert told[TYPES] == b'["BIGINT", "INTEGER"]'


def test_decimals_say_how_many_digits_they_have(client: Client) -> None:
    """In each schema that JDBC may look at: of the plan, of the answer, of a prepared statement."""
    sql = "SELECT 1.50::DECIMAL(10, 2) AS d, 1 AS n"
    info = client.info("CommandStatementQuery", query=sql)
    request = messages.pack(messages.make("ActionCreatePreparedStatementRequest", query=sql))
    [made] = client.act("CreatePreparedStatement", request)
    prepared = pa.ipc.read_schema(pa.py_buffer(messages.unpack(made)[1].dataset_schema))
    for schema in (info.schema, client.fetch(info).schema, prepared):
        assert schema.field("n").metadata is None
        assert schema.field("d").metadata == {b"ARROW:FLIGHT:SQL:PRECISION": b"10", b"ARROW:FLIGHT:SQL:SCALE": b"2"}


def test_java_is_told_milliseconds_for_parameters_that_are_times(door: FlightDoor) -> None:
    """It sends no others, whichever it is told; who can send finer ones goes on doing so."""
    sql = "SELECT ?::TIMESTAMPTZ, ?::TIMESTAMP, ?::TIMESTAMP_NS, ?::TIME, ?::DATE, ?::INTEGER"

    def told(agent: str) -> list[str]:
        with flight.FlightClient(door.url, generic_options=[("grpc.primary_user_agent", agent)]) as client:
            options = flight.FlightCallOptions(headers=[client.authenticate_basic_token("all", "pw")])
            request = messages.pack(messages.make("ActionCreatePreparedStatementRequest", query=sql))
            [made] = client.do_action(flight.Action("CreatePreparedStatement", request), options)
            schema = messages.unpack(made.body.to_pybytes())[1].parameter_schema
            return [str(type_) for type_ in pa.ipc.read_schema(pa.py_buffer(schema)).types]

    java = ["timestamp[ms, tz=UTC]", "timestamp[ms]", "timestamp[ms]", "time32[ms]", "date32[day]", "int32"]
    assert told("grpc-java-netty/1.71.0") == java
    others = ["timestamp[us, tz=UTC]", "timestamp[us]", "timestamp[ns]", "time64[us]", "date32[day]", "int32"]
    assert told("grpc-go/1.79.0") == others


def test_a_client_reads_its_own_write_by_token(served: World, door: FlightDoor) -> None:
    for n in range(10):
        served.put(ORDERS, 6_000, qty=n)
        with connected(door, merganser_after=str(served.end)) as connection:
            assert rows(connection, f"SELECT qty FROM {ORDERS} WHERE id = 6000") == [(n,)]
        with connected(door, merganser_level="strong") as connection:
            assert rows(connection, f"SELECT qty FROM {ORDERS} WHERE id = ?", [6000]) == [(n,)]
    with connected(door, merganser_after="orders/0:100000", merganser_timeout="0.2") as connection:
        with pytest.raises(adbc.Error, match="not fresh enough"):
            rows(connection, "SELECT 1")
    with connected(door, merganser_levle="strong") as connection, pytest.raises(adbc.Error, match="unknown header"):
        rows(connection, "SELECT 1")
    with connected(door, merganser_level="soon") as connection, pytest.raises(adbc.Error, match="unknown level 'soon'"):
        rows(connection, "SELECT 1")


@pytest.mark.parametrize(
    ("sql", "type_", "number"),
    [
        ("TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", pa.timestamp("ns"), 1577836800123456789),
        ("TIMESTAMP_NS '2020-01-01 00:00:00.123456'", pa.timestamp("ns"), 1577836800123456000),
        ("'01:02:03.123456789'::TIME_NS", pa.time64("ns"), 3723123456789),
        ("TIMESTAMPTZ '2020-01-01 00:00:00.123456Z'", pa.timestamp("ns", "UTC"), 1577836800123456000),
    ],
)
def test_a_parameter_in_nanoseconds_keeps_its_digits(
    door: FlightDoor, sql: str, type_: pa.DataType, number: int
) -> None:
    with connected(door) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT x = ? FROM (SELECT {sql} AS x)", pa.record_batch([pa.array([number], type_)], ["1"]))
        assert cursor.fetchall() == [(True,)]


def test_parameters_have_types_and_go_by_place_or_by_name(door: FlightDoor) -> None:
    with connected(door) as connection:
        assert rows(connection, f"SELECT id FROM {ORDERS} WHERE id = ? AND qty < ?", [5, 50]) == [(5,)]
        assert rows(connection, f"SELECT id FROM {ORDERS} WHERE id BETWEEN $a AND $b ORDER BY 1", [5, 6]) == [
            (5,),
            (6,),
        ]
        values: list[Any] = [1, "ü", b"\x00\xff", 1.5, None, True]
        assert rows(connection, "SELECT ?, ?, ?, ?, ?, ?", values) == [tuple(values)]
        with connection.cursor() as cursor:
            cursor.adbc_prepare(f"SELECT * FROM {ORDERS} WHERE id = ? AND sku = ?")
            assert [str(f.type) for f in cursor.adbc_prepare(f"SELECT 1 FROM {ORDERS} WHERE id = ? AND sku = ?")] == [
                "int64",
                "string",
            ]
        with pytest.raises(adbc.Error, match=r"read-only|one row"):
            with connection.cursor() as cursor:
                cursor.executemany("SELECT ?", [[1], [2]])


def test_the_catalog_tells_tables_columns_keys_and_types(served: World, client: Client, door: FlightDoor) -> None:
    assert client.get("CommandGetCatalogs").to_pydict() == {"catalog_name": ["shop"]}
    assert client.get("CommandGetDbSchemas").column("db_schema_name").to_pylist() == ["_merganser", "main"]
    found = client.get("CommandGetTables", table_types=["TABLE"], include_schema=True)
    assert found.column("table_name").to_pylist() == [HIDDEN, ORDERS]
    schema = pa.ipc.read_schema(pa.py_buffer(found.column("table_schema")[1].as_py()))
    assert schema.field("id").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"BIGINT"
    assert schema.field("qty").type == pa.int32()
    assert client.get("CommandGetTables", table_name_filter_pattern="ord%").num_rows == 1
    assert client.get("CommandGetTables", catalog="other").num_rows == 0
    keys = client.get("CommandGetPrimaryKeys", table=ORDERS)
    assert keys.select(["column_name", "key_sequence"]).to_pylist() == [{"column_name": "id", "key_sequence": 1}]
    assert client.get("CommandGetTableTypes").num_rows == 2
    assert client.get("CommandGetXdbcTypeInfo").num_rows > 10
    assert client.get("CommandGetXdbcTypeInfo", data_type=12).column("type_name").to_pylist() == ["VARCHAR"]
    assert client.get("CommandGetSqlInfo", info=[0, 3]).column("value").to_pylist() == ["Merganser", True]
    assert client.get("CommandGetSqlInfo").num_rows > 40
    for name in ("CommandGetExportedKeys", "CommandGetImportedKeys"):
        assert client.get(name, table=ORDERS).num_rows == 0
    with connected(door) as connection:
        assert connection.adbc_get_info()["vendor_name"] == "Merganser"
        [catalog] = connection.adbc_get_objects(depth="tables", table_name_filter=ORDERS).read_all().to_pylist()
        assert catalog["catalog_name"] == "shop"
        assert connection.adbc_get_table_schema(ORDERS).names[:3] == ["id", "qty", "sku"]


def test_schemas_that_are_told_are_those_that_come(client: Client) -> None:
    for name in ("CommandGetCatalogs", "CommandGetTables", "CommandGetSqlInfo", "CommandGetXdbcTypeInfo"):
        info = client.info(name)
        assert info.schema == client.fetch(info).schema
    command = messages.pack(messages.make("CommandStatementQuery", query="SELECT 1 AS a"))
    asked = client.flight.get_schema(flight.FlightDescriptor.for_command(command), client.options)
    assert asked.schema.names == ["a"]


def test_pandas_and_polars_read_through_adbc(door: FlightDoor) -> None:
    import pandas as pd
    import polars as pl

    with connected(door) as connection:
        frame = pd.read_sql(f"SELECT id, qty FROM {ORDERS} WHERE id < 3 ORDER BY id", connection)
        assert frame["qty"].tolist() == [0, 1, 2]
        polar = pl.read_database(f"SELECT id, qty FROM {ORDERS} WHERE id < 3 ORDER BY id", connection)
        assert polar["qty"].to_list() == [0, 1, 2]


def test_errors_are_one_line_and_say_what_to_do(door: FlightDoor) -> None:
    with connected(door) as connection:
        for sql, word in (
            ("SELEC 1", "syntax error"),
            ("DELETE FROM orders", "not a query"),
            ("SELECT * FROM read_text('/etc/passwd')", "read_text is not served"),
            ("SELECT * FROM nowhere", "nowhere"),
            ("SELECT error('mine')", "mine"),
        ):
            with pytest.raises(adbc.Error, match=word) as raised:
                rows(connection, sql)
            text = str(raised.value)
            assert "\n" not in text and "Traceback" not in text and "hint: " in text
        with pytest.raises(adbc.Error, match="read-only"), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.adbc_statement.set_sql_query("INSERT INTO orders VALUES (1)")
            cursor.adbc_statement.execute_update()


@pytest.mark.parametrize("header", ["Basic \u00fc\u00e9", "Basic !!!", "Basic /w==", "Basic bm9jb2xvbg", "Bearer x"])
def test_what_is_no_name_and_password_is_none(header: str) -> None:
    assert basic(header) is None
    assert basic("Basic YW5uOnB3") == basic("basic YW5uOnB3==") == Credentials("ann", "pw")


def test_who_does_not_log_in_or_gives_a_wrong_password_gets_nowhere(door: FlightDoor) -> None:
    with connected(door, password="wrong") as connection:
        for _ in range(2):
            with pytest.raises(adbc.Error, match="do not fit"):
                rows(connection, "SELECT 1")
    for headers in ({}, {"authorization": "Bearer mgf-guess"}, {"authorization": "Bearer x.y"}, {"authorization": "?"}):
        with closing(Client(door, None, **headers)) as stranger:
            for ask in (
                lambda c=stranger: c.sql("SELECT 1"),
                lambda c=stranger: c.get("CommandGetTables"),
                lambda c=stranger: c.act("CreatePreparedStatement", b""),
                lambda c=stranger: list(c.flight.list_actions(c.options)),
                lambda c=stranger: c.flight.do_get(flight.Ticket(b"x"), c.options).read_all(),
            ):
                with pytest.raises(flight.FlightUnauthenticatedError):
                    ask()
    with closing(Client(door, None, authorization="Bearer all.token")) as token:
        assert token.sql("SELECT 1 AS a").num_rows == 1


def test_a_user_sees_granted_tables_only_and_nobody_elses_handles(door: FlightDoor, client: Client) -> None:
    with closing(Client(door, "some")) as some:
        assert some.get("CommandGetTables").column("table_name").to_pylist() == [ORDERS]
        assert some.get("CommandGetDbSchemas").column("db_schema_name").to_pylist() == ["main"]
        with pytest.raises(flight.FlightUnauthorizedError):
            some.sql(f"SELECT * FROM {HIDDEN}")
        info = client.info("CommandStatementQuery", query=f"SELECT * FROM {HIDDEN}")
        with pytest.raises(flight.FlightServerError, match="another user's"):
            some.fetch(info)
        assert client.fetch(info).num_rows == 1


def test_an_answer_that_is_being_read_is_not_dropped_for_others(served: World) -> None:
    """However many there were meanwhile, fetched or not."""
    guard = Guard(served.replica, ServingLimits(answers=2, answer_s=300))
    with FlightDoor(guard, anonymous=User("anybody")) as door, closing(Client(door, None)) as client:
        info = client.info("CommandStatementQuery", query="SELECT i, md5(i::VARCHAR) FROM range(300000) AS r(i)")
        slow = client.flight.do_get(info.endpoints[0].ticket, client.options)
        count = slow.read_chunk().data.num_rows
        for _ in range(4 * guard.limits.answers + 1):
            client.sql("SELECT 1")
        assert count + sum(chunk.data.num_rows for chunk in slow) == 300_000
        guard.close()


def test_a_session_outlives_that_its_user_has_to_wait() -> None:
    book = Waiting()
    keeper = Doorkeeper(book, None)
    token = keeper.sessions.begin(Credentials("ann", "pw"))
    assert keeper._check(book, f"Bearer {token}", "127.0.0.1").name == "ann"
    book.waits = True
    with pytest.raises(TooManyLogins):
        keeper._check(book, f"Bearer {token}", "127.0.0.1")
    book.waits = False
    assert keeper._check(book, f"Bearer {token}", "127.0.0.1").name == "ann"


def test_a_query_is_cancelled_and_a_session_ended(guard: Guard, client: Client) -> None:
    info = client.info("CommandStatementQuery", query="SELECT i FROM range(250000) AS r(i)")
    request = messages.make("CancelFlightInfoRequest", info=info.serialize()).SerializeToString()
    [result] = client.act("CancelFlightInfo", request)
    assert messages.parse("CancelFlightInfoResult", result).status == messages.CANCELLED
    with pytest.raises(flight.FlightServerError, match="cancelled by its client"):
        client.fetch(info)
    old = messages.pack(messages.make("ActionCancelQueryRequest", info=info.serialize()))
    [result] = client.act("CancelQuery", old)
    assert messages.unpack(result)[0] == "ActionCancelQueryResult"
    client.act("CloseSession", b"")
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.sql("SELECT 1")


def test_a_client_that_goes_in_the_middle_leaves_nothing(served: World) -> None:
    """Its answer is larger than what gRPC keeps for it, so it is not sent to its end; nothing here ends by its time."""
    guard = Guard(served.replica)
    with FlightDoor(guard, anonymous=User("anybody")) as door:
        for _ in range(5):
            going = Client(door, None)
            info = going.info("CommandStatementQuery", query="SELECT i, md5(i::VARCHAR) FROM range(600000) AS r(i)")
            going.flight.do_get(info.endpoints[0].ticket, going.options).read_chunk()
            assert guard.counts().open >= 1
            going.close()
        wait_for("all answers are closed", lambda: guard.counts().open == 0, timeout_s=120)
        wait_for("all queries have left the store", lambda: guard.counts().running == 0, timeout_s=120)
    guard.close()


def test_large_rows_come_in_portions_that_clients_take(door: FlightDoor) -> None:
    sql = "SELECT repeat('x', 1000) AS s, i FROM range(6000) AS r(i)"
    with connected(door) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetch_arrow_table().num_rows == 6000
    batch = pa.record_batch({"a": ["x" * 100] * 1000})
    assert [p.num_rows for p in portions(batch, 30_000)] == [288, 288, 288, 136]


@pytest.mark.parametrize("group", ["writes in a CTE", "SQL in SQL", "files read", "several statements", "endless"])
def test_hostile_sql_gets_nowhere_through_flight_either(group: str, served: World, hasty_door: FlightDoor) -> None:
    escapes = [e for e in GROUPS[group] if "\x00" not in e.sql]
    with closing(Client(hasty_door)) as client:
        assault(served, client.sql, escapes[:: 4 if group == "endless" else 1], refused=True)


@pytest.mark.slow
def test_all_hostile_sql_gets_nowhere_through_flight(served: World, client: Client, hasty_door: FlightDoor) -> None:
    assault(served, client.sql, BOUNDED, refused=False)
    with closing(Client(hasty_door)) as all_, closing(Client(hasty_door, "some")) as some:
        assault(served, all_.sql, REFUSED, refused=True)
        assault(served, some.sql, UNGRANTED, refused=True)


@pytest.mark.parametrize("rounds", [150, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_bytes_end_the_process(rounds: int, served: World, client: Client) -> None:
    """Commands, tickets, actions and parameters that are noise, cut short, or right with a bit turned."""
    rng = random.Random(5)
    good = [
        messages.pack(messages.make("CommandStatementQuery", query="SELECT 1")),
        messages.pack(messages.make("TicketStatementQuery", statement_handle=b"x" * 18)),
        messages.pack(messages.make("CommandGetTables", include_schema=True)),
        messages.pack(messages.make("ActionCreatePreparedStatementRequest", query="SELECT ?")),
        messages.pack(messages.make("CommandPreparedStatementQuery", prepared_statement_handle=b"y" * 18)),
        messages.make("CancelFlightInfoRequest", info=b"z").SerializeToString(),
    ]
    kinds = [
        "CreatePreparedStatement",
        "ClosePreparedStatement",
        "CancelFlightInfo",
        "CancelQuery",
        "BeginTransaction",
        "\u00e9",
    ]
    one = pa.record_batch({"a": [1]})
    for _ in range(rounds):
        data = bytearray(rng.choice([*good, rng.randbytes(rng.randrange(200))]))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        noise = bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)
        descriptor = flight.FlightDescriptor.for_command(noise)
        call = rng.randrange(5)
        try:
            if call == 0:
                client.flight.get_flight_info(descriptor, client.options)
            elif call == 1:
                client.flight.do_get(flight.Ticket(noise), client.options).read_all()
            elif call == 2:
                client.act(rng.choice(kinds), noise)
            elif call == 3:
                client.flight.get_schema(descriptor, client.options)
            else:
                writer, _ = client.flight.do_put(descriptor, one.schema, client.options)
                with writer:
                    writer.write_batch(one)
        except (flight.FlightError, pa.ArrowException) as error:
            assert call == 3 or "Traceback" not in str(error)
    with pytest.raises(flight.FlightServerError):
        client.flight.get_flight_info(flight.FlightDescriptor.for_path("a"), client.options)
    assert client.sql("SELECT 1 AS a").to_pylist() == [{"a": 1}]
    served.goes_on(9_500)


def test_a_door_with_tls_is_opened_with_its_certificate_only(guard: Guard) -> None:
    certificate, key = self_signed()
    with FlightDoor(guard, anonymous=User("anybody"), tls=(certificate, key)) as safe:
        assert safe.url.startswith("grpc+tls://")
        with flight.FlightClient(f"grpc+tls://localhost:{safe.port}", tls_root_certs=certificate) as client:
            command = messages.pack(messages.make("CommandStatementQuery", query="SELECT 1 AS a"))
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
            assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 1
        with flight.FlightClient(f"grpc+tcp://localhost:{safe.port}") as plain:
            with pytest.raises(flight.FlightError):
                plain.get_flight_info(flight.FlightDescriptor.for_command(b""), flight.FlightCallOptions(timeout=5))


def self_signed() -> tuple[bytes, bytes]:
    """A certificate for localhost, and its key, as PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return builder.sign(key, hashes.SHA256()).public_bytes(pem), private


def test_a_port_that_is_taken_is_told_in_one_line(guard: Guard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MerganserError, match="cannot listen") as no:
        FlightDoor(guard, "127.0.0.1", taken.getsockname()[1])
    assert "another address or port" in no.value.hint


def test_handles_are_bounded_age_out_and_belong_to_their_user() -> None:
    now, gone = [0.0], list[str]()
    handles = Handles[str](2, 10, gone.append, lambda: now[0])
    a, b = handles.add("x", "a"), handles.add("x", "b")
    assert handles.get("y", a) is None and handles.get("x", a) == "a"
    c = handles.add("x", "c")
    assert gone == ["b"] and handles.get("x", b) is None
    now[0] = 11
    assert handles.get("x", c) is None and gone == ["b", "a", "c"]


def test_sessions_are_bounded_and_those_that_were_right_stay() -> None:
    sessions = Sessions()
    right = sessions.begin(Credentials("a", "b"))
    sessions.proved(right)
    for n in range(2_000):
        sessions.begin(Credentials(str(n), ""))
    assert len(sessions) < 300 and sessions.get(right) is not None


def test_limits_are_checked() -> None:
    with pytest.raises(UsageError, match="running"):
        ServingLimits(running=0)
