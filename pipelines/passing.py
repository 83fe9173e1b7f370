"""Whether what keeps a file from being read may pass by itself: a disk or a network drive, and not the file.

A damaged file stays damaged; what is read from a drive that is away waits until it is there again. Judged by the
sentence, for that is all of an error that another process is told.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

NO_FOLDER = "its folder is not there"  # as where a drive is not mounted
PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO),  # a disk that fails, a drive that is away
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EMFILE, errno.ENFILE),  # too much at once
)
_WORDS = re.compile("|".join(map(re.escape, [*map(os.strerror, PASSING), NO_FOLDER])))


def sentence(error: OSError, path: Path) -> str:
    """Why the file at ``path`` cannot be opened or read."""
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return NO_FOLDER
    return error.strerror or str(error)


def may_pass(said: str) -> bool:
    """Whether a sentence tells of something that may be over in a minute."""
    return bool(_WORDS.search(said))
