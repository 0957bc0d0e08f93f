"""The long form of the crash test, on a broker of its own, which is killed now and then too."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # as pytest has it

from crash.cycles import Plan, run  # noqa: E402
from crash.naive import VARIANTS  # noqa: E402
from merganser.pipeline.broker import LocalBroker, user_jars  # noqa: E402

os.environ.setdefault("MERGANSER_JARS", str(user_jars()))


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="merganser-crash-") as folder:
        broker = LocalBroker(Path(folder) / "home")
        try:
            servers = broker.start().bootstrap_servers

            def kill_broker() -> None:
                for pid in broker.status().pids:
                    os.kill(pid, signal.SIGKILL)
                broker.start()

            plan = Plan(
                cycles=options.cycles,
                seed=options.seed,
                naive=options.naive,
                rows_per_s=options.rows_per_s,
                broker_every=options.broker_every,
            )
            print(f"{plan.cycles} cycles, seed {plan.seed}, {plan.naive or 'as built'}", flush=True)
            report = run(servers, Path(folder), plan, kill_broker, lambda line: print(line, flush=True))
        finally:
            broker.stop()
    print(report.text())
    return 0 if report.findings.none else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--rows-per-s", type=int, default=1500)
    parser.add_argument("--broker-every", type=int, default=25, help="in every N-th cycle the broker dies as well")
    parser.add_argument("--naive", choices=VARIANTS, help="a store that is wrong on purpose: the check must fail")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
