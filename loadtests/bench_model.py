"""Triton against a plain PyTorch loop and against the machine's own multiplication rate."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from loadtests.bench_report import Row
from loadtests.bench_triton import Inputs
from loadtests.machine import matmul_rate
from loadtests.plain_loop import PlainLoop
from orchestrator.inference import TritonClient
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import (
    PRECISIONS,
    resolve_precision,
)

PARTS: Final = ("unet", "vae_decoder")
SHARE_TARGET: Final = 0.55
SPEEDUP_TARGETS: Final = {"full": 4.0, "fast": 12.0}


@dataclass(frozen=True)
class Part:
    """One model's part of a batch, by Triton's own counters."""

    name: str
    seconds: float
    """In the backend, for one frame."""
    gflop: float
    """Of one frame."""

    def share(self, rate: float) -> float:
        """Part of the machine's rate (TFLOP/s) that the model reaches while it computes."""
        return self.gflop / 1000 / self.seconds / rate


async def compute_seconds(client: TritonClient) -> dict[str, float]:
    """Seconds that each model has computed since it was loaded."""
    return {name: (await client.statistics(name)).compute_seconds for name in PARTS}


def gflops(repository: Path) -> dict[str, float]:
    """10^9 operations of one frame by model, from the manifest."""
    models = json.loads((repository / "manifest.json").read_text())["models"]
    return {name: float(models[name]["gflop"]) for name in PARTS}


def what_limits(parts: list[Part], frame: float, rate: float) -> str:
    """Say in words where the time of a frame goes.

    Args:
        parts: the models.
        frame: seconds of a frame, seen by the client.
        rate: the machine's, in TFLOP/s.
    """
    lost = {part.name: part.seconds - part.gflop / 1000 / rate for part in parts}
    rest = max(0.0, frame - sum(part.seconds for part in parts))
    lost["everything outside the models"] = rest
    worst = max(lost, key=lambda name: lost[name])
    told = ", ".join(
        f"{part.name} {part.seconds / frame:.0%} of the time at {part.share(rate):.0%} of the rate"
        for part in parts
    )
    return (
        f"{told}, the rest (gRPC, copies, scheduling) {rest / frame:.1%}; most is lost in {worst}: "
        f"{lost[worst] / frame:.0%} of the time more than its products alone need"
    )


async def against_pytorch(
    client: TritonClient,
    repository: Path,
    loop: PlainLoop,
    *,
    size: str,
    decoder: str,
    batch: int,
    pairs: int,
) -> list[Row]:
    """Time the same frames in turn: yardstick, Triton, PyTorch, and again.

    Args:
        client: of a server of this repository.
        repository: its folder.
        loop: of the checkpoint the repository was built from.
        size: of the networks; targets are set for ``full`` only.
        decoder: of the repository. PyTorch always runs MuseTalk's own.
        batch: frames a call.
        pairs: how often; medians count.
    """
    inputs = Inputs.random(batch)
    config = await client.model_config("unet")
    precision = resolve_precision(config.parameters["precision"])
    await client.lipsync(inputs.latents, inputs.audio, timeout=600)
    _, expected = await loop.run(inputs)
    before = await compute_seconds(client)
    triton, pytorch, rates = [], [], []
    faces = expected
    for _ in range(pairs):
        rates.append(matmul_rate(PRECISIONS[precision]))
        start = time.perf_counter()
        faces = await client.lipsync(inputs.latents, inputs.audio, timeout=600)
        triton.append((time.perf_counter() - start) / batch)
        seconds, _ = await loop.run(inputs)
        pytorch.append(seconds / batch)
    after = await compute_seconds(client)
    operations = gflops(repository)
    parts = [
        Part(name, (after[name] - before[name]) / (pairs * batch), operations[name])
        for name in PARTS
    ]
    shares = [
        sum(operations.values()) / 1000 / seconds / rate
        for seconds, rate in zip(triton, rates, strict=True)
    ]
    frame, rate = statistics.median(triton), statistics.median(rates)
    section = f"{size}-size networks, {decoder} decoder"
    whole = size == "full"
    difference = float(np.abs(faces.astype(np.int16) - expected).mean())
    return [
        Row(
            section,
            f"Triton {precision}, batch {batch}",
            1 / frame,
            "frames/s",
            note=f"faces differ from PyTorch's by {difference:.2f} of 255 levels on average"
            if decoder == "full"
            else "another decoder than PyTorch's, so other faces",
            details={"seconds_a_frame": triton, "mean_difference": difference},
        ),
        Row(
            section,
            f"PyTorch fp32 loop, full decoder, batch {batch}",
            1 / statistics.median(pytorch),
            "frames/s",
            details={"seconds_a_frame": pytorch},
        ),
        Row(
            section,
            "Triton against PyTorch",
            statistics.median(p / t for p, t in zip(pytorch, triton, strict=True)),
            "x",
            SPEEDUP_TARGETS[decoder] if whole else None,
            note=f"median of {pairs} pairs, taken in turn; targets are for CPUs with AMX"
            if whole
            else f"median of {pairs} pairs, taken in turn",
        ),
        Row(
            section,
            f"share of the machine's {precision} rate",
            statistics.median(shares),
            "",
            SHARE_TARGET if whole and decoder == "full" else None,
            note=what_limits(parts, frame, rate),
            details={
                "tflops": rates,
                "gflop_a_frame": operations,
                "model_seconds_a_frame": {part.name: part.seconds for part in parts},
            },
        ),
    ]
