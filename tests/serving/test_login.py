"""Logging in: right or wrong, how often, and what is believed for how long."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.users import attempts, login, secrets
from merganser.pipeline.serving.users.attempts import FORGOTTEN_S, LONGEST_S, OF_A_PAIR, OF_AN_ADDRESS, Attempts
from merganser.pipeline.serving.users.login import BELIEVED_S, Logins
from merganser.pipeline.serving.users.secrets import Cost, Hash, new_token, token_hash
from merganser.pipeline.serving.users.users import User, changing
from merganser.schemas.errors import LoginFailed, TooManyLogins

CHEAP = Cost(4, 8, 1)
RIGHT, WRONG = "correct horse", "battery staple"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with changing(tmp_path / "users") as change:
        change.add(User("ann", "reader", password=Hash.of(RIGHT, CHEAP)))
    return tmp_path / "users"


@pytest.fixture
def logins(path: Path, clock: Clock) -> Logins:
    return Logins(path, clock)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Cost]:
    """What each hash cost that was computed."""
    found: list[Cost] = []
    real = secrets._scrypt

    def counting(password: str, cost: Cost, salt: bytes) -> bytes:
        found.append(cost)
        return real(password, cost, salt)

    monkeypatch.setattr(secrets, "_scrypt", counting)
    return found


def fail(logins: Logins, name: str = "ann", address: str = "1.1.1.1", password: str = WRONG) -> None:
    with pytest.raises(LoginFailed):
        logins.check(name, password, address)


def test_the_right_password_comes_in_and_no_other(logins: Logins) -> None:
    assert logins.check("ann", RIGHT, "1.1.1.1").name == "ann"
    fail(logins)
    fail(logins, password="")
    fail(logins, password=RIGHT + " ")


def test_an_unknown_name_costs_and_says_what_a_wrong_password_does(logins: Logins, hashed: list[Cost]) -> None:
    with pytest.raises(LoginFailed) as known:
        logins.check("ann", WRONG, "1.1.1.1")
    with pytest.raises(LoginFailed) as unknown:
        logins.check("bob", WRONG, "1.1.1.1")
    assert hashed == [CHEAP, CHEAP] and str(known.value) == str(unknown.value)


def test_a_log_in_is_hashed_once_a_minute(logins: Logins, hashed: list[Cost], clock: Clock) -> None:
    for _ in range(50):
        logins.check("ann", RIGHT, "1.1.1.1")
    assert len(hashed) == 1
    clock.now_s += BELIEVED_S
    logins.check("ann", RIGHT, "1.1.1.1")
    assert len(hashed) == 2


def test_what_is_believed_holds_no_password(logins: Logins) -> None:
    logins.check("ann", RIGHT, "1.1.1.1")
    assert RIGHT not in repr(vars(logins)) and RIGHT.encode() not in b"".join(logins._believed)


def test_who_fails_often_waits_even_with_the_right_password(logins: Logins, clock: Clock) -> None:
    logins.check("ann", RIGHT, "1.1.1.1")  # believed: that must not be a way to try passwords
    for _ in range(OF_A_PAIR):
        fail(logins)
    with pytest.raises(TooManyLogins) as caught:
        logins.check("ann", RIGHT, "1.1.1.1")
    with pytest.raises(TooManyLogins):
        logins.known("ann", "p", RIGHT, "1.1.1.1")
    assert logins.check("ann", RIGHT, "2.2.2.2")  # from elsewhere she comes in
    clock.now_s += caught.value.retry_s
    assert logins.check("ann", RIGHT, "1.1.1.1")


def test_a_guesser_of_names_is_slowed_down_too(logins: Logins) -> None:
    for number in range(OF_AN_ADDRESS):
        fail(logins, f"u{number}")
    with pytest.raises(TooManyLogins):
        logins.check("another", WRONG, "1.1.1.1")


def test_many_at_once_are_counted_one_by_one(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    real, running, most = secrets._scrypt, [0], [0]

    def slow(password: str, cost: Cost, salt: bytes) -> bytes:
        running[0] += 1
        most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        running[0] -= 1
        return real(password, cost, salt)

    monkeypatch.setattr(secrets, "_scrypt", slow)

    def attempt() -> None:
        try:
            logins.check("ann", WRONG, "1.1.1.1")
        except (LoginFailed, TooManyLogins) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("LoginFailed") == OF_A_PAIR and len(ends) == 20 and most == [1]


def test_more_than_may_wait_are_sent_away(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_MOST_WAITING", 0)
    with pytest.raises(TooManyLogins):
        logins.check("ann", RIGHT, "1.1.1.1")


def test_tokens_come_in_without_a_hash(path: Path, clock: Clock, hashed: list[Cost]) -> None:
    token = new_token("bot")
    with changing(path) as change:
        change.add(User("bot", "reader", token=token_hash(token)))
    logins = Logins(path, clock)
    hashed.clear()
    assert logins.check_token(token, "1.1.1.1").name == "bot" and not hashed
    for wrong in (token[:-1], "bot.", "bot", "", "ann." + token.partition(".")[2], new_token("nobody")):
        with pytest.raises(LoginFailed):
            logins.check_token(wrong, f"9.9.9.{len(wrong)}")
    with pytest.raises(LoginFailed):
        logins.check("bot", token, "1.1.1.1")  # a token is no password


def test_a_user_who_was_removed_is_out_within_a_second(logins: Logins, path: Path, clock: Clock) -> None:
    logins.check("ann", RIGHT, "1.1.1.1")
    with changing(path) as change:
        change.remove("ann")
    clock.now_s += 1
    fail(logins, password=RIGHT)


def test_a_file_that_breaks_changes_nobody(logins: Logins, path: Path, clock: Clock) -> None:
    path.write_text("{")
    clock.now_s += 1
    assert logins.check("ann", RIGHT, "1.1.1.1")


def test_a_file_that_was_open_to_others_is_taken_over_once_it_is_not(logins: Logins, path: Path, clock: Clock) -> None:
    with changing(path) as change:
        change.remove("ann")
    path.chmod(0o644)
    clock.now_s += 1
    assert logins.check("ann", RIGHT, "1.1.1.1")
    path.chmod(0o600)
    clock.now_s += 1
    fail(logins, password=RIGHT)


# -- the wait, pure --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, 0),
        (OF_A_PAIR - 1, 0),
        (OF_A_PAIR, 1),
        (OF_A_PAIR + 1, 2),
        (OF_A_PAIR + 3, 8),
        (OF_A_PAIR + 10_000, LONGEST_S),
    ],
)
def test_the_wait_doubles_up_to_a_minute(count: int, expected: float) -> None:
    assert attempts.wait_s(attempts.Failures(count, 10.0), OF_A_PAIR, 10.0) == expected


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=200))
def test_memory_is_bounded_whatever_is_tried(tried: list[tuple[str, str]]) -> None:
    kept = Attempts(most=10)
    for at_s, (name, address) in enumerate(tried):
        kept.failed(name, address, float(at_s))
        assert len(kept) <= 20


def test_failures_are_forgotten_after_a_while() -> None:
    kept = Attempts()
    for _ in range(OF_A_PAIR - 1):
        kept.failed("ann", "a", 0.0)
    kept.failed("ann", "a", FORGOTTEN_S + 1)
    assert kept.wait_s("ann", "a", FORGOTTEN_S + 1) == 0


def test_a_success_clears_the_pair_and_not_the_address() -> None:
    kept = Attempts()
    for number in range(OF_AN_ADDRESS):
        kept.failed(f"u{number}", "a", 0.0)
    kept.succeeded("u0", "a")
    assert kept.wait_s("own", "a", 0.0) > 0
