"""Rendering through a real tritonserver; its networks are a few hand-made operations."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.errors import MuseTalkError
from orchestrator.inference import connect
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import speak_to_file
from orchestrator.settings import Settings

pytestmark = pytest.mark.triton

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


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whisper_encoder``: each step its own number, plus 1. ``lipsync``: step 4 as a grey."""
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
    return path


async def speech(seconds: float) -> AsyncGenerator[Utterance, None]:
    yield Utterance(
        np.full(round(seconds * 16000), 500, np.int16),
        np.full(round(seconds * 48000), 500, np.int16),
        None,
        1.0,
    )


async def render(avatar: Any, inference: Any, output: Path, times: StageTimes) -> None:
    await speak_to_file(
        avatar,
        speech(12),
        output,
        inference=inference,
        options=RenderOptions(batch=2),
        provenance=Provenance("MuseTalk v1.5", "hand-made", "Ada"),
        times=times,
    )


def mouths(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [
            int(frame.to_ndarray(format="bgr24")[32, 48].mean()) for frame in container.decode(0)
        ]


def kill_server() -> None:
    (server,) = (
        child
        for child in psutil.Process().children(recursive=True)
        if child.name() == "tritonserver"
    )
    os.kill(server.pid, signal.SIGKILL)


async def until(condition: Any, task: asyncio.Task[Any]) -> None:
    while not condition():
        if task.done():
            await task
            raise AssertionError("the render ended before the moment to kill its server")
        await asyncio.sleep(0.01)


async def test_a_killed_server_is_restarted_and_no_frame_is_lost(
    tmp_path: Path, avatar: Any, repository: Path
) -> None:
    output, times = tmp_path / "out.mp4", StageTimes()
    async with connect(Settings(repository=repository)) as inference:
        task = asyncio.create_task(render(avatar, inference, output, times))
        await until(lambda: times.generated > 50, task)
        kill_server()
        await asyncio.wait_for(task, 120)
    assert times.retries >= 1
    seen = mouths(output)
    assert len(seen) == 300
    for index, level in enumerate(seen):
        assert abs(level - min(2 * index + 1, 250)) <= 6


async def test_a_server_that_cannot_come_back_fails_with_the_reason(
    tmp_path: Path, avatar: Any, repository: Path
) -> None:
    output, times = tmp_path / "out" / "out.mp4", StageTimes()
    broken = tmp_path / "repository"
    broken.symlink_to(repository)
    async with connect(Settings(repository=broken)) as inference:
        task = asyncio.create_task(render(avatar, inference, output, times))
        await until(lambda: times.generated > 20, task)
        broken.unlink()
        kill_server()
        with pytest.raises(MuseTalkError) as caught:
            await asyncio.wait_for(task, 60)
    assert "could not be started again" in str(caught.value)
    assert list(output.parent.iterdir()) == []
