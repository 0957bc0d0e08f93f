"""The same history for an independent judge: porcupine, a linearizability checker in Go (porcupine/main.go).

Each key is a register: writes by themselves, transactions without conditions, and strong reads. Our own checker knows
the log; this one knows only what clients saw, and when.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from history.journal import LEFT, REGISTERS, RIGHT, History, WriteOp

SOURCE = Path(__file__).parent / "porcupine"
_NEVER = 2**62


def build(folder: Path) -> tuple[Path | None, str]:
    """The checker's program; None, and why, where it cannot be built."""
    go = shutil.which("go")
    if go is None:
        return None, "no Go toolchain"
    program = folder / "porcupine"
    built = subprocess.run([go, "build", "-o", str(program), "."], cwd=SOURCE, capture_output=True, text=True)
    return (program, "") if built.returncode == 0 else (None, f"go build: {built.stderr.strip()[-300:]}")


def judge(program: Path, history: History, window: int = 400) -> tuple[list[str], int]:
    """What porcupine finds wrong, a line a register; and how many operations it looked at."""
    lines = [line for key in registers(history, window) for line in key]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run = subprocess.run([str(program)], input=text, capture_output=True, text=True, timeout=1200)
    if run.returncode not in (0, 1):
        raise AssertionError(f"porcupine failed: {run.stdout[-500:]} {run.stderr[-500:]}")
    return [line for line in run.stdout.splitlines() if not line.startswith("Ok ")], len(lines)


def registers(history: History, window: int) -> Iterator[list[dict[str, Any]]]:
    """The operations on each register, from the start of the run up to the end of its first *window*."""
    clients: dict[str, int] = {}
    values = _versions(history)
    found: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for write in history.writes:
        if write.result == "rolled back":
            continue
        for table, id_, n, condition in write.rows:
            if table in (LEFT, RIGHT) and id_ in REGISTERS:
                place = (table, id_)
                asked = _condition(condition, place, values)
                client = clients.setdefault(f"w{write.number}", len(clients))
                found[place].append(_line(place, client, write.at, _end(write), "write", n, asked))
    for number, read in enumerate(history.reads):
        if read.level != "strong" or read.error is not None:
            continue
        if read.kind == "get":
            seen = {tuple(read.of): read.value}
        else:
            rows = {(table, id_): [n, offset] for table, id_, n, offset in read.value}
            seen = {(table, id_): rows.get((table, id_)) for table in (LEFT, RIGHT) for id_ in REGISTERS}
        for place, value in seen.items():
            client = clients.setdefault(f"r{number}", len(clients))
            shown = None if value is None else value[0]
            found[place].append(_line(place, client, read.at, read.to, "read", shown, ""))  # type: ignore[arg-type]
    for _, lines in sorted(found.items()):
        yield _window(lines, window)


def _window(lines: list[dict[str, Any]], window: int) -> list[dict[str, Any]]:
    """Up to a moment: reads that had ended, and writes that had begun, some without an end."""
    lines.sort(key=lambda line: line["call"])
    if len(lines) <= window:
        return lines
    cut = lines[window]["call"]
    kept = [line for line in lines[:window] if line["kind"] == "write" or line["return"] < cut]
    return [line if line["return"] < cut else {**line, "return": _NEVER} for line in kept]


def _versions(history: History) -> dict[tuple[int, int, int], int]:
    """Which value each version is of: a condition names an offset, a register knows values only."""
    found: dict[tuple[int, int, int], int] = {}
    for write in history.writes:
        for (table, id_, n, _), place in zip(write.rows, write.offsets or (), strict=False):
            if place is not None and n is not None:
                found[table, id_, place[1]] = n
    for read in history.reads:
        if read.kind == "get" and read.value is not None:
            found[read.of[0], read.of[1], read.value[1]] = read.value[0]
    return found


def _condition(condition: str | None, place: tuple[int, int], values: dict[tuple[int, int, int], int]) -> str:
    kind, _, version = (condition or "").partition(":")
    return str(values[(*place, int(version))]) if version else kind


def _end(write: WriteOp) -> float:
    return write.to if write.result == "ok" else float("inf")


def _line(
    place: tuple[int, int], client: int, at: float, to: float, kind: str, value: int | None, condition: str
) -> dict[str, Any]:
    end = _NEVER if to == float("inf") else int(to * 1e9)
    key = f"{('left', 'right')[place[0]]}/{place[1]}"
    return {
        "key": key,
        "client": client,
        "call": int(at * 1e9),
        "return": end,
        "kind": kind,
        "value": value,
        "condition": condition,
    }
