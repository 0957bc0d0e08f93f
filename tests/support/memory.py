"""An object store in memory: as fast as a dictionary, and to be damaged at will."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from merganser.pipeline.archive.objects import Found


class MemoryObjects:
    """The Objects protocol over :attr:`files`. Its clock counts writes; :attr:`now_s` sets it forward."""

    url = "memory://"

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.times: dict[str, float] = dict.fromkeys(self.files, 0.0)
        self.written: list[str] = []
        self.now_s = 0.0
        self._ticks = itertools.count()

    def create(self, name: str, data: bytes) -> bool:
        if name in self.files:
            return self.files[name] == data
        self.put(name, data)
        return True

    def put(self, name: str, data: bytes) -> None:
        self.files[name] = bytes(data)
        self.times[name] = self.now_s + next(self._ticks) / 1e6
        self.written.append(name)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def list(self, folder: str, after: str = "") -> Iterator[Found]:
        prefix = folder.rstrip("/") + "/" if folder else ""
        for name in list(self.files):
            if name.startswith(prefix) and name > after:
                yield Found(name, len(self.files[name]), self.times.get(name, 0.0))

    def delete(self, name: str) -> None:
        self.files.pop(name, None)

    def copy(self) -> MemoryObjects:
        return MemoryObjects(self.files)
