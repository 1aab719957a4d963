"""How long the demo checkpoint's lips take, through Triton, with bf16 and without."""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tritonclient.grpc import model_config_pb2

from loadtests.altered import altered
from loadtests.bench_report import Row
from loadtests.bench_triton import request_seconds
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import resolve_precision
from orchestrator.settings import ROOT

SECTION: Final = "the demo checkpoint"
REPOSITORY: Final = ROOT / "model_repository" / "cpu"
BATCH: Final = 8
TARGETS: Final = {"bf16": 10.0, "fp32": 30.0}
"""Milliseconds a frame, on two cores."""


async def demo(runs: int = 100) -> list[Row]:
    """Time requests one after the other, in each precision that this processor computes in.

    Args:
        runs: requests of ``BATCH`` frames; the median counts.

    Raises:
        MuseTalkError: Triton failed.
    """
    rows = []
    for precision in sorted({"fp32", resolve_precision("auto")}):
        with TemporaryDirectory(prefix="musetalk-bench-") as folder:

            def compute_in(config: model_config_pb2.ModelConfig, wanted: str = precision) -> None:
                config.parameters["precision"].string_value = wanted

            repository = altered(REPOSITORY, Path(folder) / precision, compute_in)
            async with (
                EmbeddedTriton(repository) as server,
                TritonClient(server.grpc_address, default_timeout=600) as client,
            ):
                seconds = await request_seconds(client, BATCH, runs)
        each = [1000 * one / BATCH for one in seconds]
        tenths = statistics.quantiles(each, n=10)
        rows.append(
            Row(
                SECTION,
                f"lipsync, batch {BATCH}, {precision}",
                statistics.median(each),
                "ms a frame",
                TARGETS[precision],
                "most",
                f"median of {runs} requests; a tenth under {tenths[0]:.2f}, "
                f"a tenth over {tenths[-1]:.2f}",
                details={"milliseconds_a_frame": each},
            )
        )
    return rows
