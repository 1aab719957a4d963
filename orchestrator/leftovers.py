"""Temporary files whose process was killed before it could remove them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

LOG: Final = logging.getLogger("musetalk.leftovers")

PREFIX: Final = "musetalk-work-"
"""What all temporary files and folders of renders begin with."""

LEFT_AFTER_SECONDS: Final = 24 * 3600.0
"""Nothing takes a day: what was not touched for so long belongs to nobody."""


def remove_leftovers() -> int:
    """Remove this user's temporary files that are too old to be in use; returns how many."""
    before = time.time() - LEFT_AFTER_SECONDS
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another service may be at the same
            about = path.lstat()
            if about.st_uid != os.getuid() or about.st_mtime > before:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
    if removed:
        LOG.info("%d temporary files or folders of killed processes are removed", removed)
    return removed
