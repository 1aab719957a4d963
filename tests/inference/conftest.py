"""Small hand-made ONNX models behind a real tritonserver, and a scripted gRPC server."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.inference import EmbeddedTriton

NUMBERS = {"FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "UINT8": TensorProto.UINT8}


def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


def write_model(
    repository: Path,
    name: str,
    inputs: dict[str, tuple[str, list[int]]],
    outputs: dict[str, tuple[str, list[int]]],
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    max_batch: int = 8,
) -> Path:
    """A model of the repository: config.pbtxt and 1/model.onnx with a dynamic batch."""

    def values(tensors: dict[str, tuple[str, list[int]]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(key, NUMBERS[dtype], ["batch", *dims])
            for key, (dtype, dims) in tensors.items()
        ]

    graph = helper.make_graph(
        nodes,
        name,
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = repository / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    write_config(repository, name, inputs, outputs, max_batch=max_batch)
    return path


def write_config(
    repository: Path,
    name: str,
    inputs: dict[str, tuple[str, list[int]]],
    outputs: dict[str, tuple[str, list[int]]],
    *,
    max_batch: int = 8,
    rest: str = "",
) -> None:
    def tensors(kind: str, described: dict[str, tuple[str, list[int]]]) -> str:
        return "".join(
            f'{kind} {{ name: "{key}" data_type: TYPE_{dtype} dims: {dims} }}\n'
            for key, (dtype, dims) in described.items()
        )

    served = rest or (
        'backend: "musetalk_openvino"\n'
        "instance_group { kind: KIND_CPU count: 1 }\n"
        "dynamic_batching {}\n"
        'parameters { key: "precision" value { string_value: "fp32" } }\n'
    )
    (repository / name).mkdir(exist_ok=True, parents=True)
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}"\nmax_batch_size: {max_batch}\n'
        + tensors("input", inputs)
        + tensors("output", outputs)
        + served
    )


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def write_scale(repository: Path, name: str = "scale", factor: float = 2.0) -> Path:
    """y = factor * x, FP16 [3]."""
    return write_model(
        repository,
        name,
        {"x": ("FP16", [3])},
        {"y": ("FP16", [3])},
        [node("Mul", ["x", "factor"], "y")],
        {"factor": np.array(factor, np.float16)},
    )


def write_slow(repository: Path, layers: int = 12) -> Path:
    """Convolutions that keep a core busy for tens of milliseconds a row; FP32 [32,64,64]."""
    weight = np.full((32, 32, 3, 3), 1 / 288, np.float32)
    names = ["x", *(f"h{i}" for i in range(1, layers)), "y"]
    return write_model(
        repository,
        "slow",
        {"x": ("FP32", [32, 64, 64])},
        {"y": ("FP32", [32, 64, 64])},
        [node("Conv", [names[i], "w"], names[i + 1], pads=[1, 1, 1, 1]) for i in range(layers)],
        {"w": weight},
    )


def write_avatar_models(repository: Path) -> None:
    """The models of a MuseTalk repository with their real tensors and trivial arithmetic."""
    latents, audio = ("FP16", [8, 32, 32]), ("FP16", [50, 384])
    pred, face = ("FP16", [4, 32, 32]), ("UINT8", [256, 256, 3])
    write_model(
        repository,
        "unet",
        {"latents": latents, "audio": audio},
        {"pred": pred},
        [  # the first four channels plus the first value of the audio
            node("Slice", ["latents", "zero", "four", "one"], "head"),
            node("Slice", ["audio", "zeros", "ones", "axes"], "first"),
            node("Unsqueeze", ["first", "three"], "wide"),
            node("Add", ["head", "wide"], "pred"),
        ],
        {
            "zero": int64(0),
            "one": int64(1),
            "four": int64(4),
            "zeros": int64(0, 0),
            "ones": int64(1, 1),
            "axes": int64(1, 2),
            "three": int64(3),
        },
    )
    write_model(
        repository,
        "vae_decoder",
        {"pred": pred},
        {"face": face},
        [  # the first three channels, eight times as large, as uint8
            node("Slice", ["pred", "zero", "three", "one"], "colours"),
            node("Cast", ["colours"], "floats", to=TensorProto.FLOAT),
            node("Resize", ["floats", "", "scales"], "large", mode="nearest"),
            node("Transpose", ["large"], "last", perm=[0, 2, 3, 1]),
            node("Cast", ["last"], "face", to=TensorProto.UINT8),
        ],
        {
            "zero": int64(0),
            "one": int64(1),
            "three": int64(3),
            "scales": np.array([1, 1, 8, 8], np.float32),
        },
    )
    write_config(
        repository,
        "lipsync",
        {"latents": latents, "audio": audio},
        {"face": face},
        rest="""platform: "ensemble"
ensemble_scheduling {
  step { model_name: "unet" model_version: -1
    input_map { key: "latents" value: "latents" } input_map { key: "audio" value: "audio" }
    output_map { key: "pred" value: "pred" } }
  step { model_name: "vae_decoder" model_version: -1
    input_map { key: "pred" value: "pred" } output_map { key: "face" value: "face" } }
}
""",
    )
    (repository / "lipsync" / "1").mkdir()
    write_model(
        repository,
        "whisper_encoder",
        {"mel": ("FP32", [80, 3000])},
        {"hidden_states": ("FP16", [1500, 5, 384])},
        [  # hidden_states[t, :, :] is mel[0, t]
            node("Slice", ["mel", "starts", "ends", "axes"], "head"),
            node("Reshape", ["head", "narrow"], "column"),
            node("Cast", ["column"], "half", to=TensorProto.FLOAT16),
            node("Expand", ["half", "wide"], "hidden_states"),
        ],
        {
            "starts": int64(0, 0),
            "ends": int64(1, 1500),
            "axes": int64(1, 2),
            "narrow": int64(-1, 1500, 1, 1),
            "wide": int64(1, 1500, 5, 384),
        },
        max_batch=2,
    )


class LoopThread:
    """An event loop in a thread, for servers that outlive one test's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Scratch folders of this test alone, so that what is left over is its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_scale(folder)
    write_slow(folder)
    write_avatar_models(folder)
    return folder


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    """One real server for all tests that only call it."""
    loop = LoopThread()
    server = EmbeddedTriton(repository, start_timeout=100)
    loop.run(server.start())
    yield server
    loop.run(server.stop())
    loop.close()


@pytest.fixture
def one_model(tmp_path: Path) -> Callable[[], Path]:
    """A repository with the model ``scale`` alone, quick to start."""

    def make() -> Path:
        write_scale(tmp_path / "repository")
        return tmp_path / "repository"

    return make


@pytest.fixture
def slow_repository(tmp_path: Path) -> Path:
    """A repository with ``scale`` and the slow model."""
    folder = tmp_path / "slow-repository"
    write_scale(folder)
    write_slow(folder)
    return folder
