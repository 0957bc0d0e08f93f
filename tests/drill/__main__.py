"""The long form of the restore drill, on a broker of its own."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # as pytest has it

from drill.run import drill  # noqa: E402
from history.run import new_plan  # noqa: E402
from merganser.pipeline.broker import LocalBroker, user_jars  # noqa: E402

os.environ.setdefault("MERGANSER_JARS", str(user_jars()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="merganser-drill-") as folder:
        broker = LocalBroker(Path(folder) / "home")
        try:
            plan = new_plan(broker.start().bootstrap_servers, Path(folder), seed=options.seed)
            print(f"drill: {options.points} points, {options.rows:,} rows, seed {plan.seed}", flush=True)
            report = drill(plan, options.points, options.rows, lambda line: print(line, flush=True))
        finally:
            broker.stop()
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
