"""The process that owns a server; what it does at the server's or the parent's end is tested with
the whole of it in test_lifecycle and test_command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from orchestrator.inference import server

KEEPER = Path(server.__file__).with_name("keeper.py")
SLOW = """
import runpy, subprocess, sys, time
popen = subprocess.Popen
def late(*args, **options):
    process = popen(*args, **options)
    time.sleep(0.3)
    return process
subprocess.Popen = late
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""A keeper that the machine lets wait after the start of its server."""


def test_the_server_s_id_is_a_line_of_its_own(tmp_path: Path) -> None:
    """Triton writes a line and its end apart: an id between the two would not be found."""
    (tmp_path / "scratch").mkdir()
    plan = {
        "command": ["sh", "-c", "printf 'half a line'; sleep 0.6; echo; echo $$"],
        "environment": dict(os.environ),
        "scratch": str(tmp_path / "scratch"),
        "shm_prefix": f"no-such-{os.getpid()}",
        "grace": 5.0,
    }
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(KEEPER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as keeper:
        assert keeper.stdin is not None and keeper.stdout is not None
        keeper.stdin.write(json.dumps(plan).encode() + b"\n")
        keeper.stdin.flush()
        said = keeper.stdout.read().decode().splitlines()  # its end is the server's
        keeper.stdin.close()
        assert keeper.wait(timeout=10) == 0
    assert said == [f"keeper: pid {said[2]}", "half a line", said[2]]
    assert not (tmp_path / "scratch").exists()
