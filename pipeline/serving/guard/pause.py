"""When nobody is let in for a moment, so that the store can be checkpointed.

DuckDB checkpoints at a commit, but not while a transaction is open that began before an UPDATE: and each commit of the
apply loop has one, of the positions. Queries that always overlap would put it off for ever; the WAL would grow, and
applying get slower, since no dead row goes before a checkpoint.

Pure: sizes and times come from outside.

Invariants
- While it holds nobody is let in, and it holds for a bounded time: until the WAL is small, or a while has passed.
- Queries that run longer than that are not stopped for it. But each further pause waits for them twice as long, up to
  the longest time that one may run; so the WAL is bounded, whatever they are.
"""

from __future__ import annotations

#: The first pause waits so long for the queries that run.
FIRST_S = 1.0

#: Once nobody reads, the next commit checkpoints. If none comes, nothing is written, or it is not the queries that hold
#: it back (a backup reads too).
COMMIT_S = 1.0


class Pause:
    """Of queries, from when the WAL passes *limit* bytes. Each waits *longest_s* at most for those that run."""

    def __init__(self, limit: int, longest_s: float) -> None:
        self._limit, self._longest_s = limit, longest_s
        self._from, self._patience_s = limit, min(FIRST_S, longest_s)
        self._since_s: float | None = None
        self._alone_s: float | None = None
        self.times, self.seconds = 0, 0.0

    @property
    def on(self) -> bool:
        return self._since_s is not None

    def holds(self, wal: int, running: int, now_s: float) -> bool:
        """Whether nobody is let in: the WAL has *wal* bytes, and *running* queries run."""
        if wal < self._limit:
            self._end(now_s, self._limit, min(FIRST_S, self._longest_s))
            return False
        if self._since_s is None:
            if wal < self._from:
                return False
            self._since_s, self.times = now_s, self.times + 1
        if running:
            if now_s - self._since_s >= self._patience_s:
                self._end(now_s, wal + self._limit, min(2 * self._patience_s, self._longest_s))
        elif self._alone_s is None:
            self._alone_s = now_s
        elif now_s - self._alone_s >= COMMIT_S:
            self._end(now_s, wal + self._limit, self._patience_s)
        return self.on

    def _end(self, now_s: float, next_from: int, patience_s: float) -> None:
        if self._since_s is not None:
            # Whoever waited may have given up, and nobody have looked since.
            self.seconds += min(now_s - self._since_s, self._patience_s + COMMIT_S)
        self._since_s = self._alone_s = None
        self._from, self._patience_s = next_from, patience_s
