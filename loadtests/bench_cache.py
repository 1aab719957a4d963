"""Checkpoints and repositories for the benchmarks, made once and kept in a folder."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, Literal

from orchestrator.errors import SetupError

Size = Literal["full", "small"]
Decoder = Literal["full", "fast"]

CHECKPOINT_BYTES: Final = {"full": 5_000_000_000, "small": 100_000_000}
REPOSITORY_BYTES: Final = {"full": 6_000_000_000, "small": 200_000_000}
"""Free space to have before writing, the copy that a build stages included."""


class BenchCache:
    """``DIR/<size>/ckpt`` and ``DIR/<size>/repo-<decoder>``, each made when first asked for.

    The networks are random (``musetalk export init``): speed does not depend on the weights.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Name the folder.

        Args:
            folder: may be empty or not there.
            say: told what is being made and how long it takes.
        """
        self._folder = folder
        self._say = say

    def checkpoint(self, size: Size) -> Path:
        """A random checkpoint.

        Raises:
            SetupError: the disk is too full.
            MuseTalkError: it could not be written.
        """
        path = self._folder / size / "ckpt"
        if not path.is_dir():
            self._space(CHECKPOINT_BYTES[size])
            self._say(f"Writing a random {size}-size checkpoint into {path}")
            _in_a_process(_init, path, size)
        return path

    def repository(self, size: Size, decoder: Decoder) -> Path:
        """A Triton repository for this machine's CPU, precision ``auto``.

        Raises:
            SetupError: the disk is too full.
            MuseTalkError: it could not be built.
        """
        path = self._folder / size / f"repo-{decoder}"
        if not (path / "manifest.json").is_file():
            checkpoint = self.checkpoint(size)
            self._space(REPOSITORY_BYTES[size])
            took = "minutes" if size == "full" else "half a minute"
            self._say(f"Building {path} ({took})")
            _in_a_process(_build, checkpoint, path, decoder)
        return path

    def _space(self, needed: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise SetupError(
                f"{self._folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed",
                remedy="free some space, or name another folder with --cache",
            )


def _in_a_process(work: Callable[..., None], *arguments: object) -> None:
    """Run where torch's memory goes back to the system afterwards."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, *arguments).result()


def _init(directory: Path, size: str) -> None:
    from export.init import init

    init(directory, size)


def _build(checkpoint: Path, repository: Path, decoder: str) -> None:
    from export.build import build

    build(checkpoint, repository, "cpu", "auto", decoder)
