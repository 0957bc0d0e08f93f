"""What the tests of the local broker run in processes of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from merganser.pipeline.broker import LocalBroker


def start(home: str) -> None:
    status = LocalBroker(Path(home)).start(wait_s=120)
    print(json.dumps({"pids": status.pids, "bootstrap_servers": status.bootstrap_servers}))


if __name__ == "__main__":
    start(sys.argv[1])
