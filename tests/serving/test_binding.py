"""Where a door may be opened, as a table."""

from __future__ import annotations

import pytest

from merganser.pipeline.serving.users.binding import ANYBODY, LOCAL, Address, Safety, admit
from merganser.pipeline.serving.users.users import User
from merganser.schemas.errors import UnsafeDoor, UsageError

HERE = ["127.0.0.1:80", "127.9.9.9:80", "localhost:80", "[::1]:80", ":80"]
ELSEWHERE = [
    "0.0.0.0:80",
    "[::]:80",
    "10.0.0.1:80",
    "192.168.1.1:80",
    "example.org:80",
    "[2001:db8::1]:80",
    "localhost.:80",
]

NOTHING, USERS, TLS = Safety(), Safety(users=True), Safety(tls=True)
BOTH = Safety(users=True, tls=True)


@pytest.mark.parametrize("place", HERE)
def test_on_this_machine_alone_anybody_may_be_let_in(place: str) -> None:
    address = Address.parse(place)
    assert admit("HTTP", address, NOTHING) == LOCAL and admit("HTTP", address, TLS) == LOCAL
    assert admit("HTTP", address, USERS) is None and admit("HTTP", address, BOTH) is None


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("safety", [NOTHING, USERS, TLS])
def test_elsewhere_it_takes_users_and_tls(place: str, safety: Safety) -> None:
    with pytest.raises(UnsafeDoor) as caught:
        admit("HTTP", Address.parse(place), safety)
    assert "--users" in caught.value.hint and "--insecure" in caught.value.hint


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize(
    ("safety", "who"),
    [
        (BOTH, None),
        (Safety(users=True, insecure=True), None),
        (Safety(insecure=True), ANYBODY),
        (Safety(tls=True, insecure=True), ANYBODY),
    ],
)
def test_elsewhere_nobody_is_an_operator_without_a_log_in(place: str, safety: Safety, who: User | None) -> None:
    assert admit("HTTP", Address.parse(place), safety) == who
    assert who is None or who.role == "reader"


@pytest.mark.parametrize("text", ["", "80", "host", "host:", "host:x", "::1:80", "host:70000", "host:-1", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


@pytest.mark.parametrize("text", [*HERE[:-1], *ELSEWHERE])
def test_an_address_reads_as_it_was_written(text: str) -> None:
    assert str(Address.parse(text)) == text
