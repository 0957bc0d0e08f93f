"""``python -m examples.shop``: tell the story once. Exit 0 only if everything that was promised held."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import merganser as mg

from . import trouble
from .process import Failed
from .screen import Screen
from .story import Plan, Story

_COUNTED = {
    "ordered": "customers told: ordered",
    "refused": "customers told: sold out",
    "untold": "customers whose shop was killed before it could tell",
    "rejected": "attempts rejected by a condition, tried again",
    "in doubt": "commits in doubt, sent again under their id",
    "rolled back": "commits rolled back, sent again",
    "records repeated": "records of those that were there already: no effect",
    "records rejected": "records rejected",
    "look": "looks at the rooms, each of whole transactions",
    "shops killed": "shops killed",
    "rooms killed": "rooms killed",
}


def main() -> int:
    plan, servers = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="merganser-shop-"))
    with Screen() as screen:
        try:
            with mg.connect(servers) as log:
                story = Story(log, plan, folder, screen)
                findings = story.tell()
        except (Failed, mg.MerganserError) as error:
            screen.say(f"error: {error}\nThe stores are in {folder}")
            return 1
        screen.counts([(text, story.happened[event]) for event, text in _COUNTED.items()])
        screen.findings(findings)
        if any(finding.broken_by for finding in findings):
            screen.say(f"Not everything held. The stores are in {folder}")
            return 1
        screen.say("Everything held.")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return 0


def _arguments() -> tuple[Plan, str | None]:
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description=__doc__)
    add = parser.add_argument
    add("--orders", type=int, default=Plan.orders, metavar="N", help="carts to check out (%(default)s)")
    add("--shops", type=int, default=Plan.shops, metavar="N", help="processes that sell (%(default)s)")
    add("--kills", type=int, default=Plan.kills, metavar="N", help="SIGKILLs, a shop and a room in turn (%(default)s)")
    add("--lose", type=float, default=Plan.lose, metavar="X", help="part of the commits that lose their answer")
    add("--seed", type=int, default=Plan.seed, metavar="N", help="of carts, victims and lost answers")
    add(
        "--without",
        action="append",
        default=[],
        choices=[trouble.CONDITIONS, trouble.OPERATIONS],
        help="take this protection away, and see the check at the end fail",
    )
    add("--bootstrap-servers", metavar="HOST:PORT", help="the broker; else the local one, started if need be")
    given = parser.parse_args()
    if min(given.orders, given.shops) < 1 or not 0 <= given.lose < 1:
        parser.error("at least one cart and one shop, and a part of the commits below 1")
    if not 0 <= given.kills <= given.orders / 10:
        parser.error("at most one kill for ten carts: each is to meet a shop at work")
    plan = Plan(given.orders, given.shops, given.kills, given.lose, tuple(given.without), given.seed)
    return plan, given.bootstrap_servers


if __name__ == "__main__":
    sys.exit(main())
