"""Arrow's JDBC driver for Flight SQL, as Java's users have it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from merganser.pipeline.broker.jars import download, sha256_of
from merganser.pipeline.broker.progress import Progress

COORDINATES = ("org.apache.arrow", "flight-sql-jdbc-driver", "18.3.0")
SHA256 = "3f418b46c880e263558c5de669bdbede2c5d4375527ced116fb29f795b03704c"
CACHE = Path(__file__).parent.parent.parent / ".merganser"

#: What Java 17 and newer want to hear of who uses Arrow.
OPENS = "--add-opens=java.base/java.nio=ALL-UNNAMED"


def driver() -> Path:
    """The driver's jar (43 MB), fetched and checked once."""
    jar = CACHE / f"{COORDINATES[1]}-{COORDINATES[2]}.jar"
    if not jar.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=CACHE) as scratch:
            shutil.move(download(*COORDINATES, Path(scratch), Progress()), jar)
    assert sha256_of(jar) == SHA256
    return jar
