"""TensorRT through Polygraphy: build one engine, run one engine. Nothing else knows either."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.gpu.device import Device
from export.gpu.profiles import BatchRange
from export.model_config import Model
from orchestrator.errors import EngineError, SetupError

Array = npt.NDArray[Any]
OLDEST = (10, 0)


@dataclass(frozen=True)
class Toolkit:
    """TensorRT and Polygraphy as they are installed.

    Attributes:
        version: of TensorRT; engines run with exactly this one.
        trt: the module ``polygraphy.backend.trt``.
    """

    version: str
    trt: Any


def load_toolkit() -> Toolkit:
    """Import TensorRT and Polygraphy.

    Raises:
        SetupError: one is missing or too old.
    """
    try:
        tensorrt = importlib.import_module("tensorrt")
        trt = importlib.import_module("polygraphy.backend.trt")
    except ImportError as error:
        raise SetupError(
            f"building engines needs TensorRT and Polygraphy: {error}",
            remedy="run it inside the image of docker/triton.Dockerfile, "
            "or ask for --plan or --target onnxruntime",
        ) from error
    version = str(tensorrt.__version__)
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < OLDEST:
        raise SetupError(
            f"TensorRT {version} is too old", remedy="use the image of docker/triton.Dockerfile"
        )
    return Toolkit(version, trt)


def artefact_key(toolkit: Toolkit, device: Device, onnx: str, ranges: Sequence[BatchRange]) -> str:
    """Short name of an engine: whatever changes it changes the name.

    Args:
        toolkit: its TensorRT version counts.
        device: its architecture and MIG profile count.
        onnx: hash of the graph and its weights.
        ranges: the profiles.
    """
    parts = [toolkit.version, device.sm, device.mig, onnx, [asdict(one) for one in ranges]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def build_engine(
    toolkit: Toolkit,
    onnx: Path,
    model: Model,
    ranges: Sequence[BatchRange],
    timing_cache: Path,
) -> bytes:
    """Compile a graph, strongly typed, with one profile for each range of batch sizes.

    Args:
        toolkit: what compiles.
        onnx: ``model.onnx``; precision is in it.
        model: its interface.
        ranges: profiles, in the order of their numbers.
        timing_cache: file of measured tactics, read if it is there and brought up to date.

    Raises:
        EngineError: TensorRT could not build it; with its reason.
    """
    trt = toolkit.trt
    profiles = []
    for one in ranges:
        profile = trt.Profile()
        for tensor in model.inputs:
            smallest, best, largest = (
                (size, *tensor.dims) for size in (one.smallest, one.best, one.largest)
            )
            profile.add(tensor.name, min=smallest, opt=best, max=largest)
        profiles.append(profile)
    # What stays float32 because of its range may use TF32, which keeps as many digits as
    # float16; a model that is float32 as a whole is so for its accuracy.
    config = trt.CreateConfig(
        profiles=profiles,
        tf32=model.precision != "fp32",
        load_timing_cache=str(timing_cache) if timing_cache.exists() else None,
    )
    network = trt.NetworkFromOnnxPath(str(onnx), strongly_typed=True)
    try:
        engine = trt.engine_bytes_from_network(
            network, config=config, save_timing_cache=str(timing_cache)
        )
    except Exception as error:
        raise EngineError(f"{model.name}: TensorRT built no engine: {_reason(error)}") from error
    return bytes(engine)


@contextmanager
def _runner(toolkit: Toolkit, engine: Any, profile: int) -> Iterator[Any]:
    with toolkit.trt.TrtRunner(engine, optimization_profile=profile) as runner:
        yield runner


def run_engine(
    toolkit: Toolkit,
    plan: bytes,
    model: Model,
    inputs: Mapping[str, Array],
    ranges: Sequence[BatchRange],
) -> Iterator[tuple[int, int, Array]]:
    """Run an engine at the sizes of each of its profiles.

    Args:
        toolkit: what runs it.
        plan: the engine.
        model: its interface.
        inputs: captured ones, batch first; rows are repeated to fill a size.
        ranges: its profiles, in the order of their numbers.

    Yields:
        Number of the profile, batch size, first output.

    Raises:
        EngineError: it cannot be loaded or run.
    """
    output = model.outputs[0].name
    try:
        engine = toolkit.trt.engine_from_bytes(plan)
        for number, one in enumerate(ranges):
            with _runner(toolkit, engine, number) as runner:
                for size in one.sizes():
                    feed = {name: fill(array, size) for name, array in inputs.items()}
                    # A copy: the runner uses its buffers again.
                    yield number, size, np.array(runner.infer(feed)[output])
    except Exception as error:
        if isinstance(error, EngineError):
            raise
        raise EngineError(f"{model.name}: its engine does not run: {_reason(error)}") from error


def fill(array: Array, size: int) -> Array:
    """The first ``size`` rows, starting again from the first when there are not enough."""
    return np.ascontiguousarray(array[np.arange(size) % len(array)])


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
