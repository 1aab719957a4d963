"""The ``musetalk`` command as a process."""

from __future__ import annotations

import os
import subprocess
import sys

_PRODUCT = """
import os, sys
from orchestrator import cli
sys.argv = ["musetalk", "--help"]
try:
    cli.main()
except SystemExit:
    pass
import numpy
matrix = numpy.ones((500, 500))
matrix @ matrix
print("threads", len(os.listdir("/proc/self/task")))
"""


def test_matrix_products_leave_the_other_cores_to_the_networks() -> None:
    unset = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", _PRODUCT],
        env=unset,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "threads 1"
