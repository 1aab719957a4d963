"""Temporary files of killed processes, and those that are somebody's."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.leftovers import LEFT_AFTER_SECONDS, PREFIX, remove_leftovers


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def test_only_what_nobody_touched_for_a_day_goes(temporary: Path) -> None:
    kept = Path(tempfile.mkdtemp(prefix=PREFIX))
    (kept / "piece.mp4").touch()
    age(kept, LEFT_AFTER_SECONDS - 60)
    left = Path(tempfile.mkdtemp(prefix=PREFIX))
    (left / "piece.mp4").touch()
    age(left, LEFT_AFTER_SECONDS + 60)
    sound = temporary / f"{PREFIX}sound"
    sound.touch()
    age(sound, 2 * LEFT_AFTER_SECONDS)
    other = temporary / "musetalk-triton-x"
    other.mkdir()
    age(other, 2 * LEFT_AFTER_SECONDS)
    assert remove_leftovers() == 2
    assert sorted(temporary.iterdir()) == sorted([kept, other])
    assert (kept / "piece.mp4").exists()
    assert remove_leftovers() == 0


def test_a_link_goes_and_what_it_leads_to_stays(temporary: Path) -> None:
    (temporary / "mine").mkdir()
    (temporary / "mine" / "letter").touch()
    link = temporary / f"{PREFIX}link"
    link.symlink_to(temporary / "mine", target_is_directory=True)
    age(link, 2 * LEFT_AFTER_SECONDS)
    assert remove_leftovers() == 1
    assert (temporary / "mine" / "letter").exists() and not link.is_symlink()
