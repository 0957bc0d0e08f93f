"""Real clients under writes, on a broker of its own; prints the rate that was reached."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # as pytest has it

from clients.load import load  # noqa: E402
from clients.readers import LARGE, READERS  # noqa: E402
from merganser.pipeline.broker import LocalBroker, user_jars  # noqa: E402

os.environ.setdefault("MERGANSER_JARS", str(user_jars()))


def main() -> int:
    every = READERS | LARGE
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--rate", type=int, default=50_000, help="rows/s that are wanted")
    parser.add_argument("--rounds", type=int, default=50, help="own writes of each client")
    parser.add_argument("--clients", nargs="*", choices=every, default=list(every))
    parser.add_argument("--naive", action="store_true", help="without tokens: the check must fail")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="merganser-clients-") as folder:
        broker = LocalBroker(Path(folder) / "home")
        try:
            servers = broker.start().bootstrap_servers
            makes = {name: every[name] for name in options.clients}
            report = load(servers, Path(folder), makes, options.rate, options.rounds, by_token=not options.naive)
        finally:
            broker.stop()
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
