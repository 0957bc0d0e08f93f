"""What a log says last that a person can use. Pure."""

from __future__ import annotations

import re

EXCEPTION = re.compile(r"^(?:Caused by: )?(?:[a-z][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error)\b.*")
FAILURE = re.compile(r"^\[[^]]*\] (?:ERROR|FATAL) .*")
STAMP = re.compile(r"^\[[^]]*\] (?:[A-Z]+ )?")
LONGEST = 300


def last_words(log: str, console: str) -> str:
    """The line that tells why a node ended.

    Kafka's log ends in stack traces: the last exception's own line says most, else the last ERROR. The
    JVM says what it cannot do on the console, the reason first.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    for wanted in (EXCEPTION, FAILURE):
        for line in reversed(lines):
            if wanted.match(line):
                return _shown(line)
    spoken = [line.strip() for line in console.splitlines() if line.strip()]
    for line in spoken:
        if EXCEPTION.match(line) or line.startswith(("Error", "Unrecognized", "Invalid", "Exception")):
            return _shown(line)
    for line in (*spoken[:1], *lines[-1:]):
        return _shown(line)
    return "it said nothing"


def _shown(line: str) -> str:
    text = STAMP.sub("", line)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
