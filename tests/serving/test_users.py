"""A file of users: whole or refused, for its owner alone, and without a secret in it."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.users.secrets import (
    Cost,
    Hash,
    check_password,
    new_token,
    nobody,
    token_hash,
    token_matches,
)
from merganser.pipeline.serving.users.users import User, Users, changing, read_users
from merganser.schemas.errors import BadUsers, UsageError

CHEAP = Cost(4, 8, 1)


def user(name: str = "ann", **more: Any) -> User:
    return User(name, more.pop("role", "reader"), password=Hash.of("correct horse", CHEAP), **more)


def saved(path: Path, *users: User) -> Path:
    with changing(path) as change:
        for each in users:
            change.add(each)
    return path


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    token = new_token("bot")
    users = [user(), user("op", role="operator"), user("bot", tables=frozenset({"a", "b"}), token=token_hash(token))]
    found = read_users(saved(tmp_path / "users", *users))
    assert found == Users({each.name: each for each in users})


def test_nothing_in_the_file_opens_a_door(tmp_path: Path) -> None:
    token = new_token("bot")
    text = saved(tmp_path / "users", user("bot", token=token_hash(token))).read_text()
    assert "correct horse" not in text and token not in text and token.partition(".")[2] not in text
    assert "correct horse" not in repr(user()) and str(user().password) not in repr(user())


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "users", user())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(BadUsers, match="others may read") as caught:
        read_users(path)
    assert "chmod 600" in caught.value.hint


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path / "users", user())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already"), changing(path) as change:
        change.add(user("new"))
        change.add(user())
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"users", "users.lock"}


def test_two_who_add_at_once_lose_nobody(tmp_path: Path) -> None:
    path = tmp_path / "users"
    names = [f"u{i}" for i in range(12)]
    threads = [threading.Thread(target=saved, args=(path, user(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_users(path).by_name) == set(names)


GOOD = json.loads(Users({"ann": user()}).encoded())

DAMAGED = {
    "no JSON": b"{",
    "another format": {**GOOD, "format": 2},
    "an unknown key": {**GOOD, "more": 1},
    "no object": [],
    "an unknown role": {**GOOD, "users": [{**GOOD["users"][0], "role": "root"}]},
    "a role that is missing": {**GOOD, "users": [{k: v for k, v in GOOD["users"][0].items() if k != "role"}]},
    "a hash of another kind": {**GOOD, "users": [{**GOOD["users"][0], "password": "plain:secret"}]},
    "a hash cut off": {**GOOD, "users": [{**GOOD["users"][0], "password": GOOD["users"][0]["password"][:-8]}]},
    "a hash that takes a gigabyte": {**GOOD, "users": [{**GOOD["users"][0], "password": "scrypt:20:8:1:AAAA:AAAA"}]},
    "a token in the clear": {**GOOD, "users": [{**GOOD["users"][0], "token": "ann.secret"}]},
    "tables that are no list": {**GOOD, "users": [{**GOOD["users"][0], "tables": "orders"}]},
    "a name twice": {**GOOD, "users": GOOD["users"] * 2},
    "a name with a colon": {**GOOD, "users": [{**GOOD["users"][0], "name": "a:b"}]},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_file_that_is_not_understood_admits_nobody(what: str, tmp_path: Path) -> None:
    path, content = tmp_path / "users", DAMAGED[what]
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o600)
    with pytest.raises(BadUsers):
        read_users(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadUsers, match="No such file"):
        read_users(tmp_path / "users")


@given(st.text(min_size=8, max_size=40), st.text(min_size=8, max_size=40))
def test_a_hash_matches_its_password_only(password: str, other: str) -> None:
    found = Hash.parse(str(Hash.of(password, CHEAP)))
    assert found.matches(password)
    assert found.matches(other) == (other == password) or _same_form(password, other)
    assert not nobody(CHEAP).matches(password)


def _same_form(one: str, other: str) -> bool:
    import unicodedata

    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def test_two_hashes_of_one_password_differ() -> None:
    assert str(Hash.of("correct horse", CHEAP)) != str(Hash.of("correct horse", CHEAP))


def test_a_token_is_of_its_user_and_matches_itself_only() -> None:
    token = new_token("ann")
    assert token.startswith("ann.") and token_matches(token_hash(token), token)
    assert not token_matches(token_hash(token), new_token("ann")) and not token_matches(None, token)


@pytest.mark.parametrize("bad", ["", "short", "x" * 1025, "with\nnewline", "tab\tinside"])
def test_a_password_that_is_none_is_refused_and_not_repeated(bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_password(bad)
    assert not bad or bad not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a:b", "ä", " a", ".a", "a" * 65, "a\n"])
def test_a_name_that_basic_log_in_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        User(name, "reader")
