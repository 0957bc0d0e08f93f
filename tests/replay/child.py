"""A process that replays a table, from an archive alone, and kills itself at a step of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from merganser.consumers.apply import BatchLimits
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.replay.plan import Wish
from merganser.pipeline.replay.replay import Replayer, facts_of
from merganser.pipeline.replay.sources import source_of
from restore.child import Death


def main() -> None:
    plan = json.loads(sys.argv[1])
    path = Path(plan["store"])
    with StoreFile(path) as store, store.reading() as cursor:
        ids = facts_of(cursor).topic_ids
    source = source_of(Archive(plan["archive"]), None, plan["table"], ids)
    replayer = Replayer(path, source, batches=BatchLimits(records=40), step=Death(plan.get("step", ""), 1))
    replayer.run(Wish(plan["table"], "new", transform=plan["transform"], swap=True))


if __name__ == "__main__":
    main()
