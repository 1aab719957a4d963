"""The id of this worker: the same after each restart, and no other's."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from orchestrator.errors import SetupError

_MANY: Final = 64


@contextmanager
def worker_id(folder: Path, given: str | None) -> Iterator[str]:
    """Hold the id of a worker.

    The name of the machine and the first number that no other process of this folder has: a
    process that ends, however it does, leaves its number to the one that comes after it.

    Args:
        folder: where the locks are, on this machine.
        given: an id that the operator chose, or None.

    Raises:
        SetupError: another process on this machine has the given id.
    """
    machine = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:100] or "worker"
    names = [given] if given is not None else [f"{machine}-{number}" for number in range(_MANY)]
    for name in names:
        file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        try:
            yield name
        finally:
            os.close(file)
        return
    raise SetupError(
        f"another process already makes videos as worker {names[0]}",
        remedy="give each its own MUSETALK_WORKER_ID",
    )
