"""``make load`` for real, a few seconds of it: the report is written, the objective decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.triton


def run(tmp_path: Path, on_time: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "loadtests.load", "--users", "1", "--seconds", "5"),
            *("--output", str(tmp_path / "load")),
        ],
        cwd=ROOT,
        env={**os.environ, "MUSETALK_LOAD_ON_TIME": on_time},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_objective_decides_the_exit_status(tmp_path: Path) -> None:
    possible = run(tmp_path, "0")
    assert possible.returncode == 0, possible.stderr
    assert (tmp_path / "load" / "report.html").stat().st_size > 10_000
    assert "chunks on time" in possible.stdout + possible.stderr
    impossible = run(tmp_path, "1.01")
    assert impossible.returncode == 1
