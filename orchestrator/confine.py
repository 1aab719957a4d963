"""Run a program with bounded memory and processor time: ``confine.py BYTES SECONDS PROGRAM ...``.

The limits are there before the program is: it replaces this process. Run it with ``python -I -S``,
so that it starts in some 10 ms.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

NOT_STARTED = 127
"""Exit status when the program is not there, or cannot be started."""


def command(memory: int, seconds: float, program: list[str]) -> list[str]:
    """The command line that runs a program confined.

    Args:
        memory: bytes of address space.
        seconds: of processor time, of all threads together.
        program: the program and its arguments.
    """
    limits = [str(memory), str(max(1, round(seconds)))]
    return [sys.executable, "-I", "-S", str(Path(__file__)), *limits, *program]


def confine(memory: int, seconds: int) -> None:
    """Confine this process and those that it starts; no core dump, as it would hold uploads."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    confine(int(sys.argv[1]), int(sys.argv[2]))
    try:
        os.execv(sys.argv[3], sys.argv[3:])
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        sys.exit(NOT_STARTED)
