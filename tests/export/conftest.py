"""Checkpoints and repositories that several tests of the export read, built once."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.bisenet import BiSeNet
from export.build import build
from export.init import init
from export.manifest import Manifest

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(autouse=True)
def _what_is_there_is_not_searched() -> None:
    """Tracing leaves half a million objects; builds collect garbage after each model.

    Walking over them took longer than most builds here.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def golden_chain() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "chain.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="session")
def golden_checkpoint() -> Path:
    return GOLDEN / "checkpoint"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """Lets the first worker that needs it make a folder, and all others take it: a build is slow.

    Gives the folder and what ``make(folder)`` returned.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], object]) -> tuple[Path, Any]:
        folder, answer = root / f"once-{name}", root / f"once-{name}.answer"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not answer.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one who failed
                folder.mkdir()
                answer.write_bytes(pickle.dumps(make(folder)))
        return folder, pickle.loads(answer.read_bytes())

    return get


@pytest.fixture(scope="session")
def golden_repository(
    golden_checkpoint: Path, once: Callable[..., tuple[Path, Any]]
) -> tuple[Path, Manifest, list[str]]:
    """Repository, manifest and progress lines of the golden checkpoint in fp32."""

    def make(folder: Path) -> tuple[Manifest, list[str]]:
        lines: list[str] = []
        repository = folder / "repository"
        manifest = build(golden_checkpoint, repository, precision="fp32", progress=lines.append)
        return manifest, lines

    folder, (manifest, lines) = once("golden", make)
    return folder / "repository", manifest, lines


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small") / "checkpoint"
    init(directory, "small", seed=7)
    return directory


@pytest.fixture
def small_checkpoint(_small: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(_small, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def small_repository(_small: Path, once: Callable[..., tuple[Path, Any]]) -> tuple[Path, Path]:
    """A checkpoint with every part, its repository with the fast decoder, precision auto."""

    def make(folder: Path) -> None:
        checkpoint = Path(shutil.copytree(_small, folder / "checkpoint"))
        torch.manual_seed(13)
        parsing = BiSeNet()
        with torch.no_grad():
            for name, value in parsing.state_dict().items():
                if value.ndim == 4:  # kept as large from layer to layer, so that classes differ
                    torch.nn.init.kaiming_normal_(value)
                elif name.endswith(("running_mean", "bias")):
                    value.normal_(0, 0.1)
        (checkpoint / "face-parse-bisent").mkdir()
        torch.save(
            parsing.state_dict(),
            checkpoint / "face-parse-bisent" / "79999_iter.pth",
            _use_new_zipfile_serialization=False,
        )
        build(checkpoint, folder / "repository", decoder="fast")

    folder, _ = once("small", make)
    return folder / "checkpoint", folder / "repository"
