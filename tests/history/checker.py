"""Is what clients saw a thing that the log allows? Every operation of a history is held against the fold.

Freshness is judged by the writes' own tokens: a read that began (for ``bounded``: less the bound) after a
write was acknowledged must have applied its token. Values are judged by the position that the read carries.

The rules are the same whichever way a read goes: a door adds time before and after, and its node begins later than
its client did. In two things the ways differ. Within one life of a replica no read goes back, through whichever door;
a client that chooses between nodes may go back between two reads at ``eventual``, and at ``session`` it shows no less
than any read of its own did before. And a client that finds nobody, or an answer that is older than it asked for, says
so by an error: that is a violation too, since its own node lives as long as it does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from history.fold import TABLE, Record, Tables
from history.journal import ENTRIES, FIRST_BALANCE, SHARED, History, ReadOp, WriteOp, own


@dataclass
class Findings:
    """Violations, each a line with the operation that shows it; and how much was looked at."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def none(self) -> bool:
        return not self.violations

    def add(self, kind: str, what: str, shown_by: object) -> None:
        self.kinds[kind] += 1
        if self.kinds[kind] <= 3:
            self.violations.append(f"{kind}: {what}\n      {_short(shown_by)}")

    def text(self) -> str:
        counts = "\n".join(f"  {n:>9,}  {kind}" for kind, n in sorted(self.counts.items()))
        if self.none:
            return f"{counts}\nno violation"
        kinds = ", ".join(f"{kind} {n}" for kind, n in self.kinds.items())
        shown = "\n".join(f"  - {line}" for line in self.violations[:30])
        return f"{counts}\n{sum(self.kinds.values())} violations: {kinds}\n{shown}"


def _short(shown_by: object) -> str:
    text = repr(shown_by)
    return text if len(text) < 400 else text[:400] + "…"


def check(history: History, log: Sequence[Sequence[Record]], ends: Sequence[int]) -> Findings:
    """Everything that is wrong with *history*, given the committed *log*."""
    findings = Findings()
    _count(history, findings)
    final = Tables(log)
    final.advance(ends)
    _check_writes(history, log, final, findings)
    _check_order(history, findings)
    _check_outcomes(history, final, findings)
    good = [read for read in history.reads if read.error is None and read.position is not None]
    applied: dict[int, list[int]] = {}
    for replica in sorted({read.replica for read in good}):
        applied |= _check_values([read for read in good if read.replica == replica], history, log, findings)
    for life in sorted({read.life for read in good if read.life is not None}):
        _check_never_back([read for read in good if read.life == life], findings)
    for session in sorted({read.session for read in good}):
        _check_never_back([read for read in good if read.session == session], findings, "session")
    _check_failures(history, findings)
    _check_fresh(good, applied, history, findings)
    return findings


def _count(history: History, findings: Findings) -> None:
    for write in history.writes:
        findings.counts[f"write {write.kind}: {write.result or 'no answer'}"] += 1
    for read in history.reads:
        failed = f" failed: {read.error.partition(':')[0]}" if read.error else ""
        way = "" if read.way == "inside" else f", {read.way}"
        findings.counts[f"read {read.kind}, {read.level}{way}{failed}"] += 1
    answered: dict[str, str] = {}
    for read in sorted(history.reads, key=lambda read: read.to):
        if read.way == "anywhere" and read.error is None:
            moved = answered.get(read.session, read.replica) != read.replica
            findings.counts["sessions that went on at the other node"] += moved
            answered[read.session] = read.replica


# -- writes --------------------------------------------------------------------------------------


def _check_writes(history: History, log: Sequence[Sequence[Record]], final: Tables, findings: Findings) -> None:
    """Each write is in the log as its client was told: there, not there, or whole."""
    by_tx: dict[str, list[Record]] = defaultdict(list)
    by_w: dict[int, list[Record]] = defaultdict(list)
    for record in (record for part in log for record in part):
        if record.tx is not None:
            by_tx[record.tx].append(record)
        elif record.value is not None:
            by_w[record.w].append(record)
    known = {write.tx for write in history.writes if write.tx is not None}
    intents: dict[int, list[WriteOp]] = defaultdict(list)
    for write in history.writes:
        intents[write.w].append(write)
        if write.tx is None:
            _check_plain(write, log, findings)
        else:
            _check_transaction(write, by_tx.get(write.tx, []), final, findings)
    for tx, records in by_tx.items():
        if tx not in known:
            findings.add("phantom", f"nobody wrote the transaction {tx}", records)
    for w, records in by_w.items():
        if w not in intents:
            findings.add("phantom", f"nobody wrote {w}", records)
    for w, attempts in intents.items():
        once = len(attempts) > 1 or attempts[0].op is not None
        applied = final.applied[w]
        if once and applied > 1:
            findings.add("applied twice", f"intent {w} was applied {applied} times", attempts)
        # A register's row may be rejected; a transfer or an event without a condition may not.
        # Who was fenced leaves its work to the newer producer of its id, and says that it will be done.
        told = any(write.result in ("ok", "fenced") for write in attempts)
        if told and not applied and not any(row[3] for write in attempts for row in write.rows) and _rows(attempts):
            findings.add("lost", f"intent {w} was acknowledged, and is not applied", attempts)


def _rows(attempts: Iterable[WriteOp]) -> bool:
    return any(row[2] is not None for write in attempts for row in write.rows)


def _check_plain(write: WriteOp, log: Sequence[Sequence[Record]], findings: Findings) -> None:
    for row, place in zip(write.rows, write.offsets or (), strict=False):
        if place is None:
            continue
        found = _at(log[place[0]], place[1])
        if found is None or not _is(found, row):
            findings.add("lost", f"at {place} the log has {found}, not {row}", write)


def _at(records: Sequence[Record], offset: int) -> Record | None:
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        if records[middle].offset < offset:
            low = middle + 1
        else:
            high = middle
    return records[low] if low < len(records) and records[low].offset == offset else None


def _is(record: Record, row: Sequence[Any]) -> bool:
    table, id_, n, condition = row
    value = None if n is None else (id_, n)
    key = None if table == ENTRIES else id_
    return (TABLE[record.part], record.key, record.value, record.condition) == (table, key, value, condition)


def _check_transaction(write: WriteOp, records: list[Record], final: Tables, findings: Findings) -> None:
    if write.result == "rolled back" and records:
        findings.add("rolled back, but in the log", str(write.tx), write)
    elif write.result == "ok" and not records:
        findings.add("lost", f"the transaction {write.tx} was acknowledged, and is not in the log", write)
    elif records:
        missing = [row for row in write.rows if not any(_is(record, row) for record in records)]
        if missing or len(records) != len(write.rows):
            findings.add("torn in the log", f"{len(records)} of {len(write.rows)} records of {write.tx}", write)
        elif write.tx not in final.outcomes:
            findings.add("torn in the log", f"{write.tx} is not whole by its manifest", write)


def _check_order(history: History, findings: Findings) -> None:
    """A write that began after another was acknowledged lies behind it in the log."""
    writes = [write for write in history.writes if write.offsets]
    for write, floor in _sweep(history.writes, [(write.at, write) for write in writes], findings):
        for place in write.offsets or ():
            if place is not None and place[1] < floor[place[0]]:
                findings.add("out of order", f"{place} lies before {floor[place[0]]}, acknowledged earlier", write)


def _check_outcomes(history: History, final: Tables, findings: Findings) -> None:
    for read in history.reads:
        if read.kind == "outcome" and read.error is None and read.value != "in-doubt":
            became = final.outcomes.get(read.of[0], "rejected").removeprefix("repeats ")
            if became != read.value:
                findings.add("wrong outcome", f"{read.of[0]} is {became}", read)


# -- reads ---------------------------------------------------------------------------------------


def _check_values(
    reads: list[ReadOp], history: History, log: Sequence[Sequence[Record]], findings: Findings
) -> dict[int, list[int]]:
    """Each value is the fold's at the read's position, and the sums hold.

    Returns, by the read's identity, how far those had applied that had something held back.
    """
    fold, applied = Tables(log), dict[int, list[int]]()
    homes = {(TABLE[r.part], r.key): r.part for part in log for r in part if r.key is not None}
    shown: dict[tuple[int, int], list[int]] | None = None
    for read in sorted(reads, key=lambda read: sum(read.position or ())):
        assert read.position is not None
        if read.position != fold.at:
            try:
                fold.advance(read.position)
            except ValueError:
                findings.add("no order of states", "neither of two positions of a store is the later one", read)
                continue
            shown = None
        if read.kind == "get":
            table, id_ = read.of
            want = fold.get(table, id_, homes.get((table, id_), -1))
            if read.value != want:
                findings.add("wrong value", f"the log says {want}", read)
        else:
            if shown is None:
                shown = fold.scan()
            value = {(table, id_): [n, offset] for table, id_, n, offset in read.value}
            if value != shown:
                keys = [k for k in value.keys() | shown.keys() if value.get(k) != shown.get(k)]
                differs = {k: (value.get(k), shown.get(k)) for k in keys[:5]}
                findings.add("wrong value", f"shown, and by the log: {differs}", read)
            _check_money(value, history, read, findings)
        if fold.held:
            applied[id(read)] = fold.applied_position
    return applied


def _check_money(shown: dict[tuple[int, int], list[int]], history: History, read: ReadOp, findings: Findings) -> None:
    plan = history.plan
    ranges = [SHARED, *(own(writer) for writer in range(plan.writers))]
    balances = {id_: n for (table, id_), (n, _) in shown.items() if table < ENTRIES and any(id_ in r for r in ranges)}
    if not balances:
        return  # before the accounts were opened
    if sum(balances.values()) != FIRST_BALANCE * len(plan.accounts):
        findings.add("wrong sum", f"{sum(balances.values())}, not {FIRST_BALANCE * len(plan.accounts)}", read)
    for id_, balance in balances.items():
        if balance != FIRST_BALANCE + shown.get((3, id_), [0, 0])[0]:
            findings.add("wrong account", f"{id_} has {balance}, its entries add up to another sum", read)


def _check_never_back(reads: list[ReadOp], findings: Findings, level: str | None = None) -> None:
    """A read, if it was at *level*, that began after another had ended shows no earlier state."""
    by_end = sorted(reads, key=lambda read: read.to)
    floor, done = [0] * len(reads[0].position or ()), 0
    for read in sorted(reads, key=lambda read: read.at):
        while done < len(by_end) and by_end[done].to < read.at:
            floor = [max(pair) for pair in zip(floor, by_end[done].position or (), strict=True)]
            done += 1
        asked = level is None or read.level == level
        if asked and any(at < seen for at, seen in zip(read.position or (), floor, strict=True)):
            findings.add("back in time", f"an earlier read showed {floor}", read)


def _check_fresh(reads: list[ReadOp], applied: dict[int, list[int]], history: History, findings: Findings) -> None:
    asked = []
    for read in reads:
        if read.level == "strong":
            asked.append((read.at, read))
        elif read.bound is not None:
            asked.append((read.at - read.bound, read))
        if read.after is not None:
            _reaches(read, applied, read.after, "its token", findings)
    for read, floor in _sweep(history.writes, asked, findings):
        _reaches(read, applied, floor, "acknowledged before", findings)


def _check_failures(history: History, findings: Findings) -> None:
    """A read may wait in vain, and say so. Nothing else may fail."""
    for read in history.reads:
        if read.error is not None and not re.match(r"NotFreshEnough|OperationalError: TIMEOUT.* not fresh", read.error):
            findings.add("failed", read.error, read)


def _reaches(read: ReadOp, applied: dict[int, list[int]], target: Sequence[int], what: str, findings: Findings) -> None:
    reached = applied.get(id(read), read.position or ())
    tables = {read.of[0]} if read.kind == "get" else {0, 1, 2}
    for part, (at, wanted) in enumerate(zip(reached, target, strict=True)):
        if at < wanted and (read.after is not None or TABLE[part] in tables):
            findings.add("stale", f"of partition {part} it has {at}, {what}: {wanted}", read)
            return


def _sweep(
    writes: Iterable[WriteOp], asked: Iterable[tuple[float, Any]], findings: Findings
) -> Iterator[tuple[Any, list[int]]]:
    """Each of *asked*, with what was acknowledged before its time."""
    by_end = sorted((write for write in writes if write.token is not None), key=lambda write: write.to)
    floor, done = [0] * (len(by_end[0].token or ()) if by_end else 0), 0
    by_time: Callable[[tuple[float, Any]], float] = lambda pair: pair[0]  # noqa: E731
    for at, what in sorted(asked, key=by_time):
        while done < len(by_end) and by_end[done].to < at:
            floor = [max(pair) for pair in zip(floor, by_end[done].token or (), strict=True)]
            done += 1
        if floor:
            yield what, floor
