"""A training folder that survives interruption, and what all phases of training share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.demo.frames import SHARD, Speech, load_speech, make_shard, make_speech

SAVE_EVERY = 120.0
"""Seconds between two states on disk."""
CHANNELS_LAST = torch.channels_last
Log = Callable[[str], None]
Progress = Callable[[str, float], None]
"""Told the phase and the part of it that is done, 0 to 1."""


def autocast(enabled: bool) -> torch.autocast:
    """bfloat16 arithmetic on the CPU, or none."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def pixels(crops: np.ndarray) -> torch.Tensor:
    """U8[n,h,w,3] BGR to float [n,3,h,w] RGB of -1 to 1, channels last."""
    tensor = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=CHANNELS_LAST)


class Run:
    """A training folder: its data, its state files, its curves."""

    def __init__(
        self, folder: Path, log: Log, bf16: bool, progress: Progress = lambda _phase, _part: None
    ) -> None:
        self.folder, self.log, self.bf16, self.progress = folder, log, bf16, progress
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace a state file at once, never half of it."""
        part = self.folder / f"{name}.part"
        torch.save(state, part)
        part.rename(self.folder / f"{name}.pt")

    def load(self, name: str) -> dict[str, Any] | None:
        """A state file, or None."""
        path = self.folder / f"{name}.pt"
        return torch.load(path, weights_only=True) if path.is_file() else None

    def note(self, **values: float | str) -> None:
        """One line of the curves, in curves.jsonl."""
        with (self.folder / "curves.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def shards(self) -> list[Path]:
        """The shards of frames that are complete."""
        return sorted((self.folder / "frames").glob("[0-9]*[0-9].npz"))

    def prepare(self, clips: int, frames: int, seed: int = 0) -> None:
        """Make what is missing of speech and frames; another seed makes others."""
        speech = self.folder / "speech"
        if not (speech / "complete").is_file():
            self.log(f"speech: {clips} clips")
            make_speech(speech, clips, seed)
        (self.folder / "frames").mkdir(exist_ok=True)
        known: list[Speech] | None = None
        for i in range(-(-frames // SHARD)):
            target = self.folder / "frames" / f"{i:05d}.npz"
            if not target.is_file():
                known = known or load_speech(speech, held_out=False)
                make_shard(target, known, i, seed)
                self.log(f"frames: {(i + 1) * SHARD}")
            self.progress("frames", (i + 1) * SHARD / frames)


def clock() -> float:
    """Seconds of both cores at work: what others take of the machine does not count."""
    return time.process_time() / torch.get_num_threads()


def read(shards: list[Path], key: str) -> np.ndarray:
    """One array of all shards, one after the other."""
    return np.concatenate([np.load(path)[key] for path in shards])


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbours, downwards and to the right."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def rate(peak: float, step: int, spent: float) -> float:
    """Learning rate: a short warm-up, then down to 2 % as the budget is spent (0 to 1)."""
    left: float = max(0.0, 1 - spent)
    return peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * float(left**0.8))
