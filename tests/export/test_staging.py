"""A folder is written completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import SafetensorError

from export.staging import staged
from orchestrator.errors import SetupError


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with staged(target) as work:
        (work / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert names(target.parent) == ["b"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask


def test_older_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (target / "old").touch()
    with staged(target) as work:
        (work / "new").touch()
    assert names(target) == ["new"] and names(tmp_path) == ["t"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_older_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(error), staged(target) as work:
        (work / "new").touch()
        raise error
    assert names(target) == ["old"] and names(tmp_path) == ["t"]


def test_failed_rename_brings_the_older_folder_back(tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(SetupError), staged(target) as work:
        shutil.rmtree(work)
        work.touch()  # a file cannot take the mode of a folder's place and be renamed over it
        work.unlink()
    assert names(target) == ["old"] and names(tmp_path) == ["t"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_clear_line(tmp_path: Path, number: int) -> None:
    with pytest.raises(SetupError, match="no space left on the disk of"), staged(tmp_path / "t"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, SafetensorError])
def test_full_disk_is_recognised_behind_another_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    with pytest.raises(SetupError, match="no space left"), staged(tmp_path / "t"):
        raise error("writing failed")


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), staged(tmp_path / "t"):
        raise RuntimeError("a bug")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="file"), staged(tmp_path / "file" / "t"):
        raise AssertionError("not reached")


def dead_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "repository"
    left = tmp_path / f".repository.{dead_process()}-abc"
    running = tmp_path / f".repository.{os.getpid()}-def"
    others = tmp_path / f".repository2.{dead_process()}-ghi"
    for folder in (left, running, others):
        folder.mkdir()
        (folder / "half").touch()
    with staged(target):
        assert not left.exists()
    assert names(tmp_path) == sorted([running.name, others.name, "repository"])


def test_a_build_killed_while_it_published_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "repository"
    old = tmp_path / f".repository.old.{dead_process()}-abc" / "repository"
    old.mkdir(parents=True)
    (old / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), staged(target):
        raise KeyboardInterrupt
    assert (target / "file").read_text() == "old" and names(tmp_path) == ["repository"]
