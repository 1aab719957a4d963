"""What the project ships of a training run: the checkpoint, and the repository built from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.build import build
from orchestrator.errors import SetupError

LIMIT = 40_000_000
"""Bytes of all models together."""


def size(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ship(
    workdir: Path | None, checkpoint: Path, repository: Path, say: Callable[[str], None] = print
) -> None:
    """Replace the shipped checkpoint, and the repository that is served by default.

    Args:
        workdir: of a training run, whose networks are taken as they are; None: only the
            repository is built again from the shipped checkpoint.
        checkpoint: of the shipped weights, MuseTalk's layout, fp16.
        repository: the Triton repository for CPUs.
        say: gets a line for each step.

    Raises:
        FileNotFoundError: the run has no UNet yet.
        SetupError: the models are larger than what may be shipped.
    """
    if workdir is not None:
        from export.demo.training import write_checkpoint

        write_checkpoint(workdir, checkpoint)
        say(f"{checkpoint}: {size(checkpoint) / 1e6:.1f} MB")
    manifest = build(checkpoint, repository, "cpu", "auto", "full", progress=say)
    total = size(repository)
    say(f"{repository}: {total / 1e6:.1f} MB, weights {manifest.weights_id}")
    if total > LIMIT:
        raise SetupError(
            f"the models have {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}",
            remedy="make the networks in export/demo/networks.py smaller",
        )
