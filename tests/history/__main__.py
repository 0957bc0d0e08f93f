"""The long forms: the history checker, through the doors too (``--doors``), the bank (``--bank``), each on a broker of
its own."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # as pytest has it

from history import linear  # noqa: E402
from history.faults import FAULTS  # noqa: E402
from history.run import Report, new_plan, run  # noqa: E402
from merganser.pipeline.broker import LocalBroker, user_jars  # noqa: E402

os.environ.setdefault("MERGANSER_JARS", str(user_jars()))


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="merganser-history-") as folder:
        broker = LocalBroker(Path(folder) / "home")
        try:
            servers = broker.start().bootstrap_servers
            choices = {"seed": options.seed, "bank": options.bank, "doors": options.doors, "naive": options.naive}
            plan = new_plan(servers, Path(folder), **choices)
            what = ("the bank" if options.bank else "the history") + (", through the doors" if options.doors else "")
            print(
                f"{what}: {options.operations:,} operations, {options.kills} kills, seed {plan.seed},"
                f" {plan.naive or 'as built'}",
                flush=True,
            )
            report = run(plan, options.operations, options.kills, lambda line: print(line, flush=True))
        finally:
            broker.stop()
        print(report.text())
        agrees = options.bank or _porcupine(report, Path(folder))
    return 0 if report.findings.none and agrees else 1


def _porcupine(report: Report, folder: Path) -> bool:
    """The second judge, on the first operations of each register. True also where it cannot be had."""
    program, why = linear.build(folder)
    if program is None or report.history is None:
        print(f"porcupine: not run, {why}")
        return True
    wrong, looked_at = linear.judge(program, report.history)
    print(f"porcupine: {looked_at:,} operations on registers, {'; '.join(wrong) or 'linearizable'}")
    return not wrong


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--bank", action="store_true", help="transfers and sums only")
    parser.add_argument("--doors", action="store_true", help="clients read over HTTP and Flight SQL, too")
    parser.add_argument("--naive", choices=FAULTS, help="a variant that is wrong on purpose: the check must fail")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
