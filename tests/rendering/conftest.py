"""A small deterministic Inference and an avatar whose frames say their index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import UnavailableError

GOLDEN = Path(__file__).parent.parent / "golden"

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]


@dataclass
class FakeInference:
    """Answers with a face whose grey is the first Whisper step that the frame reads, plus 1.

    Each step's hidden state holds its own number, so a frame that reads zero rows is told apart.
    """

    delay: float = 0.0
    before_lipsync: Callable[[int], None] = lambda call: None
    batches: list[int] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    is_ready: bool = True

    async def encode_speech(
        self, mel: npt.NDArray[np.float32], steps: int, *, timeout: float | None = None
    ) -> F16:
        assert mel.shape == (80, 3000)
        hidden = np.zeros((steps, 5, 384), np.float16)
        hidden[:] = np.arange(1, steps + 1)[:, None, None]
        return hidden

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        assert latents.shape[1:] == (8, 32, 32) and audio.shape[1:] == (50, 384)
        assert len(latents) == len(audio)
        call = len(self.batches)
        self.batches.append(len(latents))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            self.before_lipsync(call)
        finally:
            self.running -= 1
        self.latents += [float(value) for value in latents[:, 0, 0, 0]]
        faces = np.empty((len(latents), 256, 256, 3), np.uint8)
        faces[:] = np.minimum(audio[:, 20, 0], 255).astype(np.uint8)[:, None, None, None]
        return faces

    async def has_model(self, name: str) -> bool:
        if not self.is_ready:
            raise UnavailableError("still away")
        return name == "lipsync"


class FakeAvatar:
    """Frames of 96x64 whose blue is 10 times their index; the face is a square in the middle."""

    name = "Ada"
    fps = 25
    width, height = 96, 64

    def __init__(self, frames: int = 5) -> None:
        self.count = frames
        self.latents = np.zeros((frames, 8, 32, 32), np.float16)
        self.latents[:] = np.arange(frames)[:, None, None, None]
        self.boxes = np.tile(np.array([32, 16, 64, 48], np.int32), (frames, 1))
        alpha = np.full((24, 24), 255, np.uint8)
        self.masks = [BlendMask(36, 20, alpha)] * frames

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> U8:
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        frame[..., 0] = 10 * index
        frame.setflags(write=False)
        return frame

    def cycle_index(self, index: int) -> int:
        place = index % (2 * self.count)
        return place if place < self.count else 2 * self.count - 1 - place


@pytest.fixture
def avatar() -> FakeAvatar:
    return FakeAvatar()


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()


@pytest.fixture
def make_inference() -> type[FakeInference]:
    return FakeInference


@pytest.fixture(scope="session")
def golden_chain() -> dict[str, Any]:
    return dict(np.load(GOLDEN / "chain.npz"))


@pytest.fixture(scope="session")
def golden_blend() -> dict[str, Any]:
    return dict(np.load(GOLDEN / "blend.npz"))


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let retries wait for moments, not for a minute."""
    monkeypatch.setattr("orchestrator.rendering.persist._RECOVERY_SECONDS", 0.2)
    monkeypatch.setattr("orchestrator.rendering.persist._POLL_SECONDS", 0.02)
    yield


CONFIG = """backend: "musetalk_openvino"
max_batch_size: 8
dynamic_batching {}
instance_group { kind: KIND_CPU count: 1 }
parameters { key: "precision" value { string_value: "fp32" } }
"""
TYPES = {"FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "UINT8": TensorProto.UINT8}


def save(
    repository: Path,
    name: str,
    inputs: dict[str, tuple[str, list[int]]],
    output: tuple[str, str, list[int]],
    nodes: list[tuple[str, list[str], str, dict[str, Any]]],
    constants: dict[str, Any],
) -> None:
    key, dtype, dims = output
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], **extra) for op, ins, out, extra in nodes],
        name,
        [
            helper.make_tensor_value_info(k, TYPES[t], ["b", *shape])
            for k, (t, shape) in inputs.items()
        ],
        [helper.make_tensor_value_info(key, TYPES[dtype], ["b", *dims])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    config = f'name: "{name}"\n' + CONFIG
    for k, (t, shape) in inputs.items():
        config += f'input {{ name: "{k}" data_type: TYPE_{t} dims: {shape} }}\n'
    shown = [-1, *dims[1:]] if name == "whisper_encoder" else dims
    config += f'output {{ name: "{key}" data_type: TYPE_{dtype} dims: {shown} }}\n'
    (folder.parent / "config.pbtxt").write_text(config)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a few hand-made operations for a real tritonserver.

    ``whisper_encoder``: each step its own number, plus 1. ``lipsync``: step 4 as a grey.
    ``vae_encoder``: zeros.
    """
    path = tmp_path_factory.mktemp("repository")
    save(
        path,
        "whisper_encoder",
        {"mel": ("FP32", [80, 3000])},
        ("hidden_states", "FP16", [1500, 5, 384]),
        [
            ("ReduceMean", ["mel", "axes"], "mean", {"keepdims": 1}),
            ("Mul", ["mean", "zero"], "nothing", {}),
            ("Unsqueeze", ["nothing", "last"], "flat", {}),
            ("Add", ["flat", "numbers"], "sum", {}),
            ("Cast", ["sum"], "hidden_states", {"to": TensorProto.FLOAT16}),
        ],
        {
            "axes": np.array([1, 2], np.int64),
            "zero": np.float32(0),
            "last": np.array([3], np.int64),
            "numbers": np.broadcast_to(
                np.arange(1, 1501, dtype=np.float32)[None, :, None, None], (1, 1500, 5, 384)
            ).copy(),
        },
    )
    save(
        path,
        "lipsync",
        {"latents": ("FP16", [8, 32, 32]), "audio": ("FP16", [50, 384])},
        ("face", "UINT8", [256, 256, 3]),
        [
            ("Slice", ["audio", "from", "to", "axes"], "step", {}),
            ("Unsqueeze", ["step", "last"], "four", {}),
            ("ReduceMean", ["latents", "all"], "latent", {"keepdims": 1}),
            ("Mul", ["latent", "zero"], "nothing", {}),
            ("Add", ["four", "nothing"], "grey", {}),
            ("Expand", ["grey", "shape"], "wide", {}),
            ("Min", ["wide", "white"], "bounded", {}),
            ("Cast", ["bounded"], "face", {"to": TensorProto.UINT8}),
        ],
        {
            "from": np.array([20, 0], np.int64),
            "to": np.array([21, 1], np.int64),
            "axes": np.array([1, 2], np.int64),
            "last": np.array([3], np.int64),
            "all": np.array([1, 2, 3], np.int64),
            "zero": np.float16(0),
            "white": np.float16(250),
            "shape": np.array([1, 256, 256, 3], np.int64),
        },
    )
    save(
        path,
        "vae_encoder",
        {"crop": ("UINT8", [256, 256, 3])},
        ("latents", "FP16", [8, 32, 32]),
        [
            ("Cast", ["crop"], "number", {"to": TensorProto.FLOAT16}),
            ("ReduceMax", ["number", "all"], "most", {"keepdims": 1}),
            ("Mul", ["most", "zero"], "nothing", {}),
            ("Expand", ["nothing", "shape"], "latents", {}),
        ],
        {
            "all": np.array([1, 2, 3], np.int64),
            "zero": np.float16(0),
            "shape": np.array([1, 8, 32, 32], np.int64),
        },
    )
    return path
