"""What this machine is and how fast it multiplies matrices: the yardstick of every figure."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops


@dataclass(frozen=True)
class Machine:
    """One line of facts to print above a table of figures."""

    cpu: str
    cores: int
    capabilities: tuple[str, ...]
    bf16_tflops: float | None
    fp32_tflops: float


def cpu_name() -> str:
    """Model name of the processor as Linux tells it, with its family and model number."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", "unknown")
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def matmul_rate(precision: str, *, size: int = 2048, runs: int = 25) -> float:
    """Best rate of a square matrix product, in TFLOP/s.

    Measured through oneDNN as OpenVINO calls it, the same kernels the networks use, and so
    without torch. 2·size³ operations a product (a multiply and an add each).

    Args:
        precision: OpenVINO inference precision, ``f32`` or ``bf16``.
        size: rows and columns of both matrices.
        runs: products to time; the fastest counts: what the machine can do when left alone.
    """
    rng = np.random.default_rng(0)
    left = ops.parameter([size, size], np.float32)
    right = ops.constant(rng.standard_normal((size, size), dtype=np.float32))
    model = ov.Model([ops.matmul(left, right, False, False)], [left])
    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1},
    )
    request = compiled.create_infer_request()
    data = rng.standard_normal((size, size), dtype=np.float32)
    request.infer([data])
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        request.infer([data])
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e12


def measure() -> Machine:
    """Name the processor and measure its matrix-product rates (a few seconds)."""
    capabilities = tuple(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return Machine(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        capabilities=capabilities,
        bf16_tflops=matmul_rate("bf16") if "BF16" in capabilities else None,
        fp32_tflops=matmul_rate("f32"),
    )
