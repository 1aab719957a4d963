"""Process that owns one tritonserver, and cleans up after it whatever happens to its parent.

Run as a script with nothing but the standard library (``python -I -S keeper.py``). Its
standard input is a pipe from the parent that carries one JSON line, the plan. The end of that
pipe is the order to stop: the parent closes it, or dies in whatever way and the kernel does;
anything written before it is the order to stop at once.
Then: SIGTERM to tritonserver, SIGKILL to its process group after the grace, all orphans
reaped, the scratch folder and the shared memory removed. Exit status is tritonserver's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = Path("/dev/shm")


class Plan(TypedDict):
    """What the parent asks for."""

    command: list[str]
    environment: dict[str, str]
    scratch: str
    shm_prefix: str
    grace: float


def main() -> int:
    """Start the server, wait for its end or for the parent's, clean up."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the pipe ends this process: a Ctrl-C in the terminal reaches the parent, which
        # drains its own work first.
        signal.signal(number, signal.SIG_IGN)
    # Unbuffered: what follows the line stays in the pipe.
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        line = pipe.readline()
    if not line:
        return 0
    plan: Plan = json.loads(line)
    waker, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        server = subprocess.Popen(
            plan["command"],
            env=plan["environment"],
            stdin=subprocess.DEVNULL,
            preexec_fn=_in_own_group,
        )
        status = _watch(server, waker, plan["grace"])
        _end_group(server.pid)
    finally:
        shutil.rmtree(plan["scratch"], ignore_errors=True)
        for region in SHARED_MEMORY.glob(plan["shm_prefix"] + "*"):
            with contextlib.suppress(OSError):
                region.unlink()
    return status if status >= 0 else 128 - status


def _watch(server: subprocess.Popen[bytes], waker: int, grace: float) -> int:
    """Wait for the server's end; the end of standard input asks for it."""
    stdin = sys.stdin.fileno()
    waiting = [stdin, waker]
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(waiting, [], [], left)
        if waker in ready:
            os.read(waker, 4096)
        status = server.poll()
        if status is not None:
            return status
        if stdin in ready:
            waiting.remove(stdin)
            if os.read(stdin, 4096):
                server.kill()
            else:
                deadline = time.monotonic() + grace
                server.send_signal(signal.SIGTERM)
        elif deadline is not None and time.monotonic() >= deadline:
            server.kill()
            deadline = None


def _end_group(group: int) -> None:
    """Kill what the server left (Python stubs survive a killed server for a while); reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _in_own_group() -> None:
    """In the child: a group of its own, default signals, death when the keeper is killed.

    It says its id itself, before it is tritonserver: that writes a line and its end apart, and
    what came between them would be no line of its own.
    """
    os.write(1, f"keeper: pid {os.getpid()}\n".encode())
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    """The system call that Python's library does not offer; best effort on old kernels."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
