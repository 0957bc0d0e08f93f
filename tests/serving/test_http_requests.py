"""What comes in over HTTP is followed to the letter, or refused by name. Pure."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import math
import threading
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.guard.ask import Ask
from merganser.pipeline.serving.http.accept import MEDIA_TYPES, encoding_of, format_of
from merganser.pipeline.serving.http.asking import Request, asked, once
from merganser.pipeline.serving.http.entrance import Entrance, check_origin, credentials
from merganser.pipeline.serving.http.problems import HttpError, headers_of, problem, status_of
from merganser.pipeline.serving.params import params_of, spelled
from merganser.pipeline.serving.users.binding import ANYBODY, LOCAL, Address
from merganser.pipeline.serving.users.users import User
from merganser.schemas import errors
from merganser.schemas.errors import LoginFailed, MerganserError, UsageError


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("application/vnd.apache.arrow.stream", "arrow"),
        ("application/x-ndjson, application/json;q=0.5", "ndjson"),
        ("application/json;q=0.2, text/csv;q=0.9", "csv"),
        ("application/json;q=0, */*", "ndjson"),
        ("TEXT/CSV ; Q=1", "csv"),
        ("text/html", None),
        ("application/json;q=nonsense", None),
        ("", "json"),
    ],
)
def test_the_format_is_the_one_that_is_preferred(accept: str | None, expected: str | None) -> None:
    assert format_of(accept) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("zstd;q=0", None),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("*", "zstd"),
        ("br", None),
    ],
)
def test_the_compression_is_one_that_is_taken(header: str | None, expected: str | None) -> None:
    assert encoding_of(header) == expected


@given(st.text(max_size=60))
def test_no_header_is_too_odd_to_be_read(text: str) -> None:
    assert format_of(text) in {None, *MEDIA_TYPES}
    assert encoding_of(text) in {None, "zstd", "gzip"}


def post(body: Any, type_: str = "application/json", **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", (), {"content-type": type_, **{n.replace("_", "-"): v for n, v in headers.items()}}, data)


def test_a_query_can_be_said_in_each_way() -> None:
    full = Ask("select ?", [1], "bounded", "t/0:1", 2.0, 3.0)
    told = {"sql": "select ?", "params": [1], "level": "bounded", "after": "t/0:1", "max_staleness": 2, "timeout": 3}
    assert asked(post(told)).ask == full
    pairs = [(name, json.dumps(v) if name == "params" else str(v)) for name, v in told.items()]
    assert asked(Request("GET", pairs)).ask == full
    headers = {"merganser-level": "bounded", "merganser-after": "t/0:1", "merganser-max-staleness": "2"}
    headers |= {"merganser-timeout": "3", "content-type": "application/sql"}
    assert asked(Request("POST", [("params", "[1]")], headers, b"select ?")).ask == full
    assert asked(Request("GET", [("sql", "select 1")])).ask == Ask("select 1")


REFUSED = {
    "no SQL": (Request("GET"), 400),
    "empty SQL": (post({"sql": " "}), 400),
    "SQL that is no text": (post({"sql": 1}), 400),
    "an unknown key": (post({"sql": "x", "levle": "strong"}), 400),
    "an unknown parameter": (Request("GET", [("sql", "x"), ("levle", "strong")]), 400),
    "an unknown level": (post({"sql": "x", "level": "linearizable"}), 400),
    "an unknown level in a header": (post({"sql": "x"}, merganser_level="Strong"), 400),
    "an unknown header of ours": (post({"sql": "x"}, merganser_levle="strong"), 400),
    "a parameter nested too deeply": (post(b'{"sql": "x", "params": [' + b"[" * 900 + b"]" * 900 + b"]}"), 400),
    "a level said twice": (post({"sql": "x", "level": "strong"}, merganser_level="strong"), 400),
    "SQL said twice": (Request("GET", [("sql", "x"), ("sql", "y")]), 400),
    "SQL in the query string and in the body": (
        Request("POST", [("sql", "x")], {"content-type": "text/plain"}, b"y"),
        400,
    ),
    "no JSON": (post(b"{"), 400),
    "JSON nested too deeply": (post(b"[" * 100_000), 400),
    "a name twice": (post(b'{"sql": "x", "sql": "y"}'), 400),
    "a number that is none": (post(b'{"sql": "x", "params": [NaN]}'), 400),
    "no object": (post([]), 400),
    "no UTF-8": (post(b"\xff", "text/plain"), 400),
    "a form": (post(b"sql=x", "application/x-www-form-urlencoded"), 415),
    "a body without a type": (Request("POST", (), {}, b"select 1"), 415),
    "a staleness of nothing": (post({"sql": "x", "max_staleness": 0}), 400),
    "a staleness that is no number": (post({"sql": "x", "max_staleness": "soon"}), 400),
    "an endless timeout": (post({"sql": "x"}, merganser_timeout="inf"), 400),
    "a timeout of true": (post({"sql": "x", "timeout": True}), 400),
    "a token that is no text": (post({"sql": "x", "after": 7}), 400),
    "an unknown format": (Request("GET", [("sql", "x"), ("format", "xml")]), 400),
    "a media type that is not offered": (Request("GET", [("sql", "x")], {"accept": "text/html"}), 406),
    "params that are text": (post({"sql": "x", "params": "1"}), 400),
    "an object that is no parameter": (post({"sql": "x", "params": [{"a": 1}]}), 400),
    "a date that is none": (post({"sql": "x", "params": [{"type": "DATE", "value": "soon"}]}), 400),
    "too many parameters": (post({"sql": "x", "params": [1] * 10_001}), 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_with_a_hint(what: str) -> None:
    request, status = REFUSED[what]
    with pytest.raises(MerganserError) as caught:
        asked(request)
    assert status_of(caught.value) == status
    told = problem(caught.value)
    assert told["error"] and told["hint"] and "\n" not in told["error"]


def test_a_header_of_ours_that_comes_twice_is_refused() -> None:
    assert once([("accept", "a"), ("accept", "b"), ("merganser-level", "strong")])["merganser-level"] == "strong"
    with pytest.raises(MerganserError, match="twice"):
        once([("merganser-level", "eventual"), ("merganser-level", "strong")])


_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.text(), st.binary(), st.uuids(),
        st.integers(min_value=-(2**127), max_value=2**127 - 1),
        st.floats(allow_nan=False),
        st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
        st.dates(), st.times(), st.datetimes(), st.datetimes(timezones=st.just(dt.UTC)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@given(st.one_of(st.lists(_VALUES, max_size=4), st.dictionaries(st.text(max_size=4), _VALUES, max_size=4)))
def test_parameters_arrive_as_they_were_sent(params: Any) -> None:
    said = [spelled(v) for v in params] if isinstance(params, list) else {n: spelled(v) for n, v in params.items()}
    assert params_of(json.loads(json.dumps(said, allow_nan=False))) == params


def test_numbers_that_json_lacks_arrive_too() -> None:
    back = params_of(
        json.loads(json.dumps([spelled(math.nan), spelled(math.inf), spelled(-math.inf)], allow_nan=False))
    )
    assert isinstance(back, list) and math.isnan(back[0]) and back[1:] == [math.inf, -math.inf]


def test_a_parameter_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="object"):
        spelled(object())
    with pytest.raises(UsageError) as refused:
        spelled([dt.timedelta(days=1)])
    assert "CAST(? AS INTERVAL)" in refused.value.hint


@pytest.mark.parametrize("text", ["1e999999999", "9" * 200, "NaN", "Infinity", "", "1_000"])
def test_a_decimal_that_would_fill_the_memory_is_refused(text: str) -> None:
    try:
        found = params_of([{"type": "DECIMAL", "value": text}])
    except UsageError:
        return
    assert isinstance(found, list) and isinstance(found[0], Decimal) and abs(found[0].adjusted()) < 100


@pytest.mark.parametrize(
    "param",
    [
        {"type": "TIMESTAMP", "value": "2026-01-31T12:00:00.123456789"},
        {"type": "TIME", "value": "12:00:00,0000001"},
        [{"type": "STRUCT", "value": {"a": {"type": "TIME", "value": "12:00:00.0000009"}}}],
        {"type": "DECIMAL", "value": "123456789012345678901234567890123456789"},
        {"type": "DECIMAL", "value": "0.123456789012345678901234567890123456789"},
        {"type": "DECIMAL", "value": "1E+38"},
        {"type": "DECIMAL", "value": "1E-38"},
        json.loads("1e400"),
    ],
)
def test_a_parameter_that_would_lose_digits_is_refused(param: object) -> None:
    with pytest.raises(UsageError, match="parameter 1"):
        params_of([param])


def test_a_parameter_that_fits_is_taken() -> None:
    most = {"type": "DECIMAL", "value": "-12345678901234567890.123456789012345678"}
    moment = {"type": "TIMESTAMP", "value": "2026-01-31T12:00:00.123456000"}
    found = params_of([most, moment, {"type": "DECIMAL", "value": "1E-37"}, 1e308])
    assert found == [Decimal(most["value"]), dt.datetime(2026, 1, 31, 12, 0, 0, 123456), Decimal("1E-37"), 1e308]


# -- who asks --------------------------------------------------------------------------------


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_credentials_are_read() -> None:
    found = credentials(basic("ann:a:b"))
    assert found is not None and (found.kind, found.name, found.secret) == ("p", "ann", "a:b")
    found = credentials("bearer ann.b.secret")
    assert found is not None and (found.kind, found.name, found.secret) == ("t", "ann.b", "ann.b.secret")
    assert credentials(None) is None and credentials("") is None


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", basic("no colon"), "Basic /w==", "Digest x", "Bearer", "Bearer  "]
)
def test_an_authorization_that_is_none_is_a_failed_log_in(header: str) -> None:
    with pytest.raises(LoginFailed):
        credentials(header)


ADDRESS = Address("127.0.0.1", 8080)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.0.0.1"])
def test_this_machine_is_asked_by_its_own_names(host: str) -> None:
    check_origin({"host": host}, ADDRESS, LOCAL)
    check_origin({"host": host, "origin": f"http://{host}"}, ADDRESS, LOCAL)


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "evil.example", "", "127.0.0.1.evil.example", "localhost@evil", "a:b:c"]
)
def test_a_foreign_name_does_not_lead_here(host: str) -> None:
    with pytest.raises(HttpError) as caught:
        check_origin({"host": host}, ADDRESS, LOCAL)
    assert caught.value.status == 421
    check_origin({"host": host}, ADDRESS, None)  # where one logs in, any name may lead
    check_origin({"host": host}, ADDRESS, ANYBODY)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("anonymous", [LOCAL, ANYBODY, None])
def test_a_page_of_another_site_cannot_ask_here(headers: dict[str, str], anonymous: Any) -> None:
    with pytest.raises(HttpError) as caught:
        check_origin({"host": "localhost:8080", **headers}, ADDRESS, anonymous)
    assert caught.value.status == 403


def test_who_waits_to_log_in_keeps_nobody_from_the_rest_of_the_door() -> None:
    let = threading.Event()

    class Slow:
        def known(self, *said: str) -> None:
            return None

        def check(self, *said: str) -> User:
            let.wait(60)
            return LOCAL

    async def flood() -> None:
        entrance = Entrance(Slow(), None, ADDRESS)  # type: ignore[arg-type]
        headers = {"host": "localhost:8080", "authorization": basic("ann:wrong")}
        asking = [asyncio.create_task(entrance.user(headers, "1.1.1.1")) for _ in range(60)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(lambda: 1) == 1
        finally:
            let.set()
            await asyncio.gather(*asking)

    asyncio.run(flood())


# -- errors ----------------------------------------------------------------------------------


def test_each_error_has_a_status_and_all_its_facts() -> None:
    late = errors.NotFreshEnough("strong", 5.0, "7 offsets behind")
    assert status_of(late) == 504
    told = problem(late)
    assert (told["code"], told["fields"]) == (
        "NotFreshEnough", {"level": "strong", "timeout_s": 5.0, "behind": "7 offsets behind"}
    )  # fmt: skip
    statuses = {
        errors.BadQuery("x"): 400,
        errors.NotAllowed("x"): 403,
        errors.Forbidden("ann", "x"): 403,
        errors.LoginFailed(): 401,
        errors.TooManyLogins("ann", 3.0): 429,
        errors.UnknownTable("t"): 404,
        errors.NotHeld("t/0"): 421,
        errors.TooLarge("x"): 413,
        errors.TooBusy("x"): 503,
        errors.QueryTimeout("the query", 1.0): 504,
        errors.QueryCancelled(): 503,
        errors.TableStopped("t", "x"): 503,
        errors.LogUnavailable("k:9092", "x"): 503,
        errors.ReadInterrupted("x"): 503,
    }
    assert {type(e).__name__: status_of(e) for e in statuses} == {type(e).__name__: s for e, s in statuses.items()}
    assert headers_of(errors.TooManyLogins("ann", 3.4))["Retry-After"] == "3"
    assert headers_of(errors.LoginFailed())["WWW-Authenticate"].startswith("Basic ")


def test_what_is_not_ours_is_told_without_its_text() -> None:
    told = problem(ValueError("/etc/secret"))
    assert "secret" not in json.dumps(told) and status_of(ValueError("x")) == 500 and told["hint"]


def test_a_uuid_is_a_uuid() -> None:
    made = uuid.uuid4()
    assert params_of([{"type": "UUID", "value": str(made)}]) == [made]
