"""What to do where a disk is full, or may not be written to: whoever it is that says so."""

from __future__ import annotations

import errno
import os

_HINTS = {
    **dict.fromkeys([errno.ENOSPC, errno.EDQUOT], "make room there, and run it again"),
    **dict.fromkeys([errno.EACCES, errno.EPERM, errno.EROFS], "check who may read and write there"),
}


def hint_of(error: Exception) -> str:
    """Empty if it is not the disk that *error*, the system's own or one with its words in it, complains of."""
    if isinstance(error, OSError):
        return _HINTS.get(error.errno or 0, "")
    return next((hint for number, hint in _HINTS.items() if os.strerror(number) in str(error)), "")
