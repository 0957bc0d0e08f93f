"""Damage to an archive with backups: what can become of files, and who has to notice.

Files that tell nothing of the data, and are not needed to trust it, are left out: leases, and ``.part`` files.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.restore.restore import Restorer
from merganser.pipeline.restore.sources import Origin, Wish
from merganser.schemas.errors import MerganserError
from stories.world import STORE_LIMITS
from support.memory import MemoryObjects

Files = dict[str, bytes]


def cut(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    keep = rng.randrange(len(files[name]))
    files[name] = files[name][:keep]
    return f"cut {name} to {keep} bytes"


def flip(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    bit = rng.randrange(8 * len(files[name]))
    files[name] = flipped(files[name], bit)
    return f"flip bit {bit} of {name}"


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def overwrite(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    start = rng.randrange(len(files[name]))
    size = rng.randint(1, min(64, len(files[name]) - start))
    new = rng.choice([bytes(size), rng.randbytes(size)])
    files[name] = files[name][:start] + new + files[name][start + size :]
    return f"overwrite {size} bytes of {name} from {start}"


def grow(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    files[name] += rng.choice([b"\0", b"\n", rng.randbytes(9), files[name]])
    return f"append to {name}"


def delete(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    del files[name]
    return f"delete {name}"


def swap(files: Files, rng: random.Random) -> str:
    one, other = rng.sample(sorted(files), 2)
    files[one], files[other] = files[other], files[one]
    return f"swap {one} with {other}"


def rename(files: Files, rng: random.Random) -> str:
    name = rng.choice(sorted(files))
    stem, dot, suffix = name.rpartition(".")
    new = f"{stem}{rng.choice(['0', 'x', '-old'])}{dot}{suffix}"
    files[new] = files.pop(name)
    return f"rename {name} to {new}"


def replace(files: Files, rng: random.Random) -> str:
    one, other = rng.sample(sorted(files), 2)
    files[one] = files[other]
    return f"write {other} over {one}"


DAMAGES: list[Callable[[Files, random.Random], str]] = [cut, flip, overwrite, grow, delete, swap, rename, replace]


def damaged(whole: Files, seed: int) -> tuple[str, Files]:
    """What was done, and the files after it; never the same as before."""
    rng = random.Random(seed)
    while True:
        files = dict(whole)
        what = rng.choice(DAMAGES)(files, rng)
        if files != whole:
            return what, files


def found_by_verify(files: Files) -> bool:
    """Whether ``backup verify`` has something to say, or refuses to read on."""
    archive = Archive(MemoryObjects(files))
    try:
        return bool(verify(archive, catalog(archive.objects)).findings)
    except MerganserError:
        return True


def restored(files: Files, path: Path, wish: Wish) -> str | None:
    """The error that refused the restore; None if a store was made."""
    archive = Archive(MemoryObjects(files))
    try:
        origin = Origin(archive, None)
        Restorer(origin, path, "g", limits=STORE_LIMITS).run(origin.plan(wish))
    except MerganserError as error:
        return str(error)
    return None
