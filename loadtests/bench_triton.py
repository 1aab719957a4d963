"""What Triton costs and what it gives: against bare OpenVINO calls, and with many clients."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from orchestrator.inference import TritonClient
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import Engine

F16 = npt.NDArray[np.float16]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Inputs:
    """One batch for ``lipsync``: latents FP16 [n,8,32,32], audio FP16 [n,50,384]."""

    latents: F16
    audio: F16

    def __len__(self) -> int:
        return len(self.latents)

    @staticmethod
    def random(batch: int, seed: int = 0) -> Inputs:
        """Values of the size that real ones have (a VAE's latents are near unit variance)."""
        rng = np.random.default_rng(seed)
        return Inputs(
            rng.standard_normal((batch, 8, 32, 32)).astype(np.float16),
            rng.standard_normal((batch, 50, 384)).astype(np.float16),
        )


class BareChain:
    """``unet`` and ``vae_decoder`` of a repository called in this process, without Triton.

    By the backend's own engine and settings, so that the difference is Triton's cost.
    """

    def __init__(self, repository: Path) -> None:
        """Compile both models.

        Args:
            repository: a built ``cpu`` repository.
        """
        self._unet, self._decoder = (_engine(repository / name) for name in ("unet", "vae_decoder"))

    def __call__(self, inputs: Inputs) -> U8:
        """Faces UINT8 [n,256,256,3] of one batch."""
        pred = self._unet.run({"latents": [inputs.latents], "audio": [inputs.audio]})["pred"]
        return self._decoder.run({"pred": [pred]})["face"].astype(np.uint8, copy=False)


def _engine(folder: Path) -> Engine:
    """A model as the backend loads it."""
    config = text_format.Parse(
        (folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return Engine.configured(folder / "1" / "model.onnx", parameters)


async def seconds_each(call: Callable[[], Awaitable[object]], runs: int) -> list[float]:
    """Wall-clock seconds of each of ``runs`` calls, one after the other."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    return seconds


async def request_seconds(client: TritonClient, batch: int, runs: int) -> list[float]:
    """Seconds of each request for ``batch`` frames, after one that is not counted.

    Args:
        client: of a server with nobody else on it.
        batch: frames a request.
        runs: requests, one after the other.
    """
    inputs = Inputs.random(batch)

    async def ask() -> None:
        await client.lipsync(inputs.latents, inputs.audio, timeout=600)

    await ask()
    return await seconds_each(ask, runs)


@dataclass(frozen=True)
class Overhead:
    """Seconds a frame with and without Triton, and the median ratio pair by pair."""

    triton: float
    bare: float
    ratio: float


async def overhead(client: TritonClient, bare: BareChain, batch: int, runs: int) -> Overhead:
    """Time Triton and bare calls in turn (A B A B), so that a drifting machine hits both.

    Args:
        client: connected to a server of the same repository.
        bare: the same models in this process.
        batch: frames a call.
        runs: pairs to time.
    """
    inputs = Inputs.random(batch)

    async def through_triton() -> None:
        await client.lipsync(inputs.latents, inputs.audio, timeout=600)

    await through_triton()
    bare(inputs)
    pairs = []
    for _ in range(runs):
        (one,) = await seconds_each(through_triton, 1)
        start = time.perf_counter()
        await asyncio.to_thread(bare, inputs)
        pairs.append((one, time.perf_counter() - start))
    return Overhead(
        triton=statistics.median(a for a, _ in pairs) / batch,
        bare=statistics.median(b for _, b in pairs) / batch,
        ratio=statistics.median(a / b for a, b in pairs),
    )


async def throughput(client: TritonClient, *, clients: int, batch: int, seconds: float) -> float:
    """Frames a second that ``clients`` callers get together, each with one call in flight.

    Args:
        client: connected to the server under test; all callers share its channel.
        clients: concurrent callers.
        batch: frames a call.
        seconds: how long to measure, after one warm-up call each.
    """
    inputs = [Inputs.random(batch, seed) for seed in range(clients)]

    async def one(item: Inputs, until: float) -> int:
        frames = 0
        while time.perf_counter() < until:
            await client.lipsync(item.latents, item.audio, timeout=600)
            frames += batch
        return frames

    await asyncio.gather(
        *(client.lipsync(item.latents, item.audio, timeout=600) for item in inputs)
    )
    start = time.perf_counter()
    done = await asyncio.gather(*(one(item, start + seconds) for item in inputs))
    return sum(done) / (time.perf_counter() - start)
