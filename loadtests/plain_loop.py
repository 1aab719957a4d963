"""The baseline: MuseTalk's own inference loop in PyTorch, float32, in a process of its own.

The body of the loop is that of MuseTalk's ``scripts/inference.py``: positional encoding, UNet at
timestep 0, VAE decoder, and the same post-processing in NumPy (musetalk_v15.md section 4).
Triton's figures are taken in another process, which never loads torch.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from loadtests.bench_triton import U8, Inputs

_loop: _Loop | None = None


class _Loop:
    """The networks, in the process that runs them."""

    def __init__(self, checkpoint: Path) -> None:
        import torch

        from export.checkpoint import Checkpoint
        from export.modules import positional_encoding

        files = Checkpoint.open(checkpoint)
        self._unet = files.unet()
        self._vae = files.autoencoder()
        self._encoding = positional_encoding(50, 384)
        self._timesteps = torch.tensor([0])

    def __call__(self, inputs: Inputs) -> U8:
        import torch

        with torch.no_grad():
            audio = torch.from_numpy(inputs.audio).float() + self._encoding
            latents = torch.from_numpy(inputs.latents).float()
            pred = self._unet(latents, self._timesteps, encoder_hidden_states=audio).sample
            image = self._vae.decode(pred / self._vae.config["scaling_factor"]).sample
            image = (image / 2 + 0.5).clamp(0, 1)
            pixels = image.cpu().permute(0, 2, 3, 1).float().numpy()
        faces: U8 = (pixels * 255).round().astype("uint8")[..., ::-1]
        return faces


def _load(checkpoint: Path) -> None:
    global _loop  # one for each process: a pool's tasks share nothing else
    _loop = _Loop(checkpoint)


def _run(inputs: Inputs) -> tuple[float, U8]:
    assert _loop is not None
    start = time.perf_counter()
    faces = _loop(inputs)
    return time.perf_counter() - start, np.ascontiguousarray(faces)


class PlainLoop:
    """The loop, to be called from a process without torch; use as a context manager."""

    def __init__(self, checkpoint: Path) -> None:
        """Name the checkpoint; it is read with the first call."""
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_load,
            initargs=(checkpoint,),
        )

    def __enter__(self) -> PlainLoop:
        """Start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give its memory back."""
        self._pool.shutdown(cancel_futures=True)

    async def run(self, inputs: Inputs) -> tuple[float, U8]:
        """Compute one batch.

        Args:
            inputs: latents and audio features.

        Returns:
            Seconds in the loop, without the way to and from its process, and the faces
            UINT8 [n,256,256,3] BGR.

        Raises:
            BrokenProcessPool: the process ended: no memory, or a checkpoint that does not fit.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, _run, inputs)
