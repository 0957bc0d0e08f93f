"""Where things are. The one place that knows the folders under ``MERGANSER_HOME``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...schemas.errors import BrokerError


def missing_extra(package: str) -> BrokerError:
    """The error for a package of the extra ``local`` that is not installed."""
    return BrokerError(f"the package {package} is not installed", hint="pip install 'merganser[local]'")


def merganser_home() -> Path:
    """``MERGANSER_HOME``, else the user's data directory."""
    named = os.environ.get("MERGANSER_HOME")
    if named:
        return Path(named).expanduser().absolute()
    try:
        import platformdirs
    except ImportError:
        raise missing_extra("platformdirs") from None
    return Path(platformdirs.user_data_dir("merganser"))


@dataclass(frozen=True)
class Folders:
    """The folders and files of one home.

    ``MERGANSER_JARS`` moves the jars alone: many homes (a test run, a shared machine) can use one
    download. Jars are checked by hash at each start, so sharing them takes no trust.
    """

    home: Path

    @property
    def jars(self) -> Path:
        shared = os.environ.get("MERGANSER_JARS")
        return Path(shared).expanduser().absolute() if shared else self.home / "jars"

    @property
    def broker(self) -> Path:
        return self.home / "broker"

    @property
    def lock(self) -> Path:
        return self.broker / "lock"

    @property
    def data(self) -> Path:
        """Appears by one rename, with everything in it."""
        return self.broker / "data"

    @property
    def cluster(self) -> Path:
        return self.data / "cluster.json"

    @property
    def pids(self) -> Path:
        return self.broker / "pids.json"

    @property
    def tmp(self) -> Path:
        """Java's temporary files (unpacked native libraries)."""
        return self.broker / "tmp"

    def node_data(self, node: int) -> Path:
        return self.data / f"node-{node}"

    def config(self, node: int) -> Path:
        """Rendered at each start. Its path, in a command line, is how a node's process is known."""
        return self.broker / "config" / f"node-{node}.properties"

    def log4j(self, node: int) -> Path:
        return self.broker / "config" / f"log4j2-{node}.properties"

    def log(self, node: int) -> Path:
        return self.broker / "logs" / f"node-{node}.log"

    def console(self, node: int) -> Path:
        """What the JVM itself says, before and beside Kafka's log."""
        return self.broker / "logs" / f"node-{node}-console.log"


def user_jars() -> Path:
    """Where this user's jars are, whatever home is used next."""
    return Folders(merganser_home()).jars
