"""The files of an import: where their bytes are, what they are, and which file it is.

Invariants: a file is known by the SHA-256 of its bytes as they are stored, never by its name; it lies on this
machine's disk while it is read, since it is read twice; a compressed file was unpacked to its end, once,
before the first row of it is written.
"""

from __future__ import annotations

import glob
import hashlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from ...schemas.errors import BadInput, UsageError
from .remote import download, listed

Format = Literal["csv", "tsv", "parquet", "json"]
Compression = Literal["gzip", "zstd"]

#: Told how many bytes more of a file were read.
Progress = Callable[[int], None]

_BLOCK = 1 << 20

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_PACKED = (".gz", ".gzip", ".zst", ".zstd")
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

_HAS_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Input:
    """A file that can be read again and again. *name* is what the user called it."""

    name: str
    path: Path
    format: Format
    compression: Compression | None
    size: int
    sha256: str
    stamp: tuple[int, ...]

    @contextmanager
    def open(self, progress: Progress = lambda read: None) -> Iterator[IO[bytes]]:
        """Its bytes, unpacked; a read that fails is a BadInput."""
        try:
            raw = self.path.open("rb")
        except OSError as error:
            raise _unreadable(self.name, error, None) from error
        with raw:
            counted = _Counted(raw, progress)
            stream: Any = counted
            if self.compression is not None:
                stream = pa.CompressedInputStream(pa.PythonFile(counted, "r"), self.compression)
            named: Any = stream if self.format == "parquet" else _Named(stream, self)
            yield named

    def check_unchanged(self) -> None:
        """BadInput if somebody has written to the file since its SHA-256 was taken."""
        if _stamp(self.path) != self.stamp:
            raise BadInput(
                self.name, "the file changed while it was read", "import it again: what it is now is another file"
            )


def names(patterns: list[str]) -> list[str]:
    """The files that *patterns* name, in the order given, those of a glob by name. BadInput if one names none."""
    found: list[str] = []
    for pattern in patterns:
        found += _expanded(pattern)
    return list(dict.fromkeys(found))


def packed_by_name(name: str) -> bool:
    """Whether the file *name* is called as one that is packed."""
    return name.lower().endswith(_PACKED)


def format_of(name: str, wanted: str | None = None) -> Format:
    """What the file *name* is, by its name unless *wanted* says it."""
    if wanted is not None:
        if wanted not in get_args(Format):
            raise UsageError(f"unknown format {wanted!r}: one of {', '.join(get_args(Format))}")
        return wanted  # type: ignore[return-value]
    path = Path(urlsplit(name).path if _is_url(name) else name)
    if path.suffix.lower() in _PACKED:
        path = path.with_suffix("")
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise BadInput(name, "its name does not tell what it is", "--format csv, tsv, parquet or json says so")
    return found


@contextmanager
def open_input(name: str, wanted: str | None = None, progress: Progress = lambda read: None) -> Iterator[Input]:
    """The file *name*: a path, an object store's URL, or ``-`` for stdin. What is not a file of this machine is
    kept in a temporary one (TMPDIR) meanwhile. BadInput."""
    format_ = format_of(name, wanted)
    local = _local_path(name)
    if local is not None and local.is_file():
        yield _scanned(name, local, format_, progress)
        return
    if local is not None and local.exists() and not _is_pipe(local):
        raise BadInput(name, "not a file")
    with tempfile.NamedTemporaryFile(prefix="merganser-import-") as kept:
        try:
            _keep(name, local, kept)
        except OSError as error:
            raise _unreadable(name, error, None) from error
        kept.flush()
        yield _scanned(name, Path(kept.name), format_, progress)


def _keep(name: str, local: Path | None, kept: IO[bytes]) -> None:
    if name == "-":
        shutil.copyfileobj(sys.stdin.buffer, kept)
    elif local is None:
        download(name, kept)
    else:
        with local.open("rb") as source:
            shutil.copyfileobj(source, kept)


def _scanned(name: str, path: Path, format_: Format, progress: Progress) -> Input:
    """Read all of it once: for its SHA-256, and to see that it can be unpacked."""
    hashed = hashlib.sha256()
    stamp, size = _stamp(path), 0
    with path.open("rb") as raw:
        head = raw.read(4)
    compression = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if not head:
        raise BadInput(name, "the file is empty")
    if compression and format_ == "parquet":
        raise BadInput(name, f"a Parquet file inside of {compression}", "unpack it: Parquet files compress themselves")
    try:
        with path.open("rb") as raw:
            counted = _Counted(raw, progress, hashed.update)
            if compression is None:
                while counted.read(_BLOCK):
                    pass
            else:
                stream = pa.CompressedInputStream(pa.PythonFile(counted, "r"), compression)
                while stream.read(_BLOCK):
                    pass
                if counted.read(1):
                    raise BadInput(name, f"bytes that are no {compression} after its end")
            size = raw.tell()
    except OSError as error:
        raise _unreadable(name, error, compression) from error
    return Input(name, path, format_, compression, size, hashed.hexdigest(), stamp)


class _Named(io.RawIOBase):
    """A stream whose errors name the file: what else fails while it is open is not its fault."""

    def __init__(self, stream: Any, file: Input) -> None:
        self._stream, self._file = stream, file

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._stream.read(None if size == -1 else size)
        except OSError as error:
            raise _unreadable(self._file.name, error, self._file.compression) from error
        return data

    def readable(self) -> bool:
        return True


class _Counted(io.RawIOBase):
    """A file that tells what was read of it."""

    def __init__(self, raw: IO[bytes], progress: Progress, look: Callable[[bytes], object] = lambda data: None) -> None:
        self._raw, self._progress, self._look = raw, progress, look

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._raw.read(-1 if size is None else size)
        self._progress(len(data))
        self._look(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()


def _stamp(path: Path) -> tuple[int, ...]:
    facts = path.stat()
    return (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _unreadable(name: str, error: OSError, compression: str | None) -> BadInput:
    if error.strerror:
        return BadInput(name, error.strerror)
    if compression:
        return BadInput(name, f"broken {compression}: {' '.join(str(error).split())}", "get the file again: it is torn")
    return BadInput(name, " ".join(str(error).split())[:200])


# -- names -------------------------------------------------------------------------------------


def _is_url(name: str) -> bool:
    return "://" in name


def _is_pipe(path: Path) -> bool:
    return path.is_fifo() or path.is_char_device()


def _local_path(name: str) -> Path | None:
    """The path that *name* is; None if its bytes are somewhere else."""
    if name == "-":
        return None
    if not _is_url(name):
        return Path(name)
    parts = urlsplit(name)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _expanded(pattern: str) -> list[str]:
    if pattern == "-":
        return [pattern]
    local = _local_path(pattern)
    if local is not None:
        if local.exists():
            return [pattern]
        if not _HAS_GLOB.search(str(local)):
            raise BadInput(pattern, "no such file", "check the path; a glob in quotes is read by `import` itself")
        found = sorted(each for each in glob.glob(str(local), recursive=True) if not Path(each).is_dir())  # noqa: PTH207
    elif not _HAS_GLOB.search(urlsplit(pattern).path):
        return [pattern]
    else:
        base = _HAS_GLOB.split(pattern)[0].rpartition("/")[0]
        matches = _glob_pattern(pattern[len(base) + 1 :])
        found = [f"{base}/{name}" for name in sorted(listed(base)) if matches.fullmatch(name)]
    if not found:
        raise BadInput(pattern, "no file matches", "check the path; ** looks into folders at any depth")
    return found


def _glob_pattern(text: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", text)))
