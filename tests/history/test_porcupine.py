"""porcupine, which knows nothing of the log, comes to the same verdict as our checker."""

from __future__ import annotations

from pathlib import Path

import pytest

from history import linear, reader
from history.faults import FAULTS
from history.journal import LEFT, RIGHT, load
from history.scripted import script
from history.test_faults import raw
from history.writer import Single
from merganser.schemas.headers import Marks
from support.naive import both_ways


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built, why = linear.build(tmp_path_factory.mktemp("porcupine"))
    if built is None:
        pytest.skip(why)
    return built


@pytest.mark.slow
@both_ways
def test_both_checkers_agree(
    naive: bool, broker: str, tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with script(broker, tmp_path) as played:
        for _ in range(6):
            played.writer.do_singles()
            played.writer.do_transaction()
            played.clients.scan("strong")
        if naive:  # FAILURES 2
            FAULTS["stable-end"](monkeypatch.setattr)
            monkeypatch.setattr(reader, "TIMEOUT_S", 1)
        open_ = raw(played, [(LEFT, {"id": 0, "n": 1, "w": 1})], [Marks()], commit=False)
        played.writer.plain([Single("put", w := played.writer.journal.number(), [LEFT, 0, w, None])])
        if naive:
            played.clients.get(LEFT, 0, "strong")
        open_.abort_transaction(30)
        played.clients.get(LEFT, 0, "strong")
        played.clients.get(RIGHT, 0, "strong")
        ours = played.judge()
        theirs, looked_at = linear.judge(program, load(played.plan))
    assert looked_at > 100
    assert bool(theirs) is naive, theirs
    assert ours.none is not naive, ours.text()
