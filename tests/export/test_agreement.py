"""One contract: whoever serves and whoever calls, names, types, shapes and batches are the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from export.build import build
from export.gpu.config import onnxruntime_config
from export.gpu.engines import Toolkit, build_engine
from export.gpu.profiles import batch_ranges
from export.gpu.skeleton import configs
from export.model_config import (
    LIPSYNC,
    LIPSYNC_STEPS,
    MODELS,
    Model,
    Tensor,
    cpu_config,
    from_text,
    lipsync_config,
    to_text,
)
from orchestrator.errors import RepositoryError
from orchestrator.inference import TritonClient
from orchestrator.inference.protocol import WHISPER_STEPS

IN_GIT = Path(__file__).parents[2] / "model_repository"


def repository(folder: Path) -> dict[str, pb.ModelConfig]:
    return {path.parent.name: from_text(path.read_text()) for path in folder.glob("*/config.pbtxt")}


def assert_interface(config: pb.ModelConfig, model: Model, *, whole: bool) -> None:
    """``whole``: of backends that always return all steps of Whisper."""
    assert (config.name, config.max_batch_size) == (model.name, model.max_batch)
    for served, defined in ((config.input, model.inputs), (config.output, model.outputs)):
        for tensor, wanted in zip(served, defined, strict=True):
            dims = tuple(WHISPER_STEPS if whole and dim == -1 else dim for dim in wanted.dims)
            dtype = pb.DataType.Name(tensor.data_type)
            assert Tensor(tensor.name, dtype, tuple(tensor.dims)) == Tensor(
                wanted.name, wanted.dtype, dims
            )


class Profiles:
    """Polygraphy as far as an engine's profiles go."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def build(self, model: Model) -> list[dict[str, tuple[tuple[int, ...], ...]]]:
        class Profile(dict[str, tuple[tuple[int, ...], ...]]):
            def add(self, name: str, *, min: tuple, opt: tuple, max: tuple) -> None:
                self[name] = (min, opt, max)

        def note(**options: Any) -> None:
            self.made = options["profiles"]

        trt = SimpleNamespace(
            Profile=Profile,
            CreateConfig=note,
            NetworkFromOnnxPath=lambda *_, **__: None,
            engine_bytes_from_network=lambda *_, **__: b"",
        )
        ranges = batch_ranges(model.max_batch)
        build_engine(Toolkit("10", trt), Path("model.onnx"), model, ranges, Path("no.cache"))
        return self.made


class Recorder(TritonClient):
    """A client whose calls go nowhere; they are answered with zeros of the contract."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.sent: dict[str, dict[str, np.ndarray]] = {}

    async def infer(self, model: str, inputs: Any, **_: Any) -> dict[str, np.ndarray]:
        self.sent[model] = dict(inputs)
        (output,) = {**MODELS, LIPSYNC.name: LIPSYNC}[model].outputs
        dims = [WHISPER_STEPS if dim == -1 else dim for dim in output.dims]
        rows = len(next(iter(inputs.values())))
        dtype = triton_to_np_dtype(output.dtype.removeprefix("TYPE_"))
        return {output.name: np.zeros((rows, *dims), dtype)}


async def test_targets_ensemble_profiles_and_client_agree() -> None:
    contract = {**MODELS, LIPSYNC.name: LIPSYNC}

    # What is in git, what the definitions make, and both targets.
    engines, demo = repository(IN_GIT / "tensorrt"), repository(IN_GIT / "cpu")
    assert {name: to_text(config) for name, config in engines.items()} == configs()
    assert set(engines) == set(contract)
    assert set(demo) == set(contract) - {"face_parsing"}, "the demo has no weights for it"
    for config in demo.values():
        assert_interface(config, contract[config.name], whole=False)
    for name, config in engines.items():
        assert_interface(config, contract[name], whole=True)
    for name, model in MODELS.items():
        assert_interface(cpu_config(model, "auto"), model, whole=False)
        ranges = batch_ranges(model.max_batch)
        assert_interface(onnxruntime_config(model, ranges), model, whole=True)
        for config in (engines[name], onnxruntime_config(model, ranges)):
            assert from_text(to_text(config)) == config
            assert config.HasField("dynamic_batching")
            # Off until the burst test passes on that server (design.md section 7).
            assert not config.dynamic_batching.HasField("default_queue_policy")
            assert config.dynamic_batching.priority_levels == 0

    # Profiles: together every size that Triton may form, each size in one of them, all used.
    for name, model in MODELS.items():
        config = engines[name]
        covered: list[int] = []
        for profile in Profiles().build(model):
            assert set(profile) == {tensor.name for tensor in model.inputs}
            for tensor in model.inputs:
                assert {shape[1:] for shape in profile[tensor.name]} == {tensor.dims}
            (sizes,) = {tuple(shape[0] for shape in shapes) for shapes in profile.values()}
            assert sizes[0] <= sizes[1] <= sizes[2]
            covered += range(sizes[0], sizes[2] + 1)
        assert covered == list(range(1, config.max_batch_size + 1))
        (group,) = config.instance_group
        assert list(group.profile) == [str(n) for n in range(len(batch_ranges(model.max_batch)))]
        tuned = {one.best for one in batch_ranges(model.max_batch)}
        assert {one.batch_size for one in config.model_warmup} == tuned
        assert {one.batch_size for one in config.optimization.cuda.graph_spec} == tuned
        assert set(config.dynamic_batching.preferred_batch_size) == tuned - {1}
        for captured in config.optimization.cuda.graph_spec:
            assert {key: tuple(value.dim) for key, value in captured.input.items()} == {
                tensor.name: tensor.dims for tensor in model.inputs
            }

    # The ensemble: tensors of one kind meet, and it takes no more than its steps.
    kinds = {tensor.name: tensor for tensor in LIPSYNC.inputs}
    for step, served in zip(
        LIPSYNC_STEPS, engines["lipsync"].ensemble_scheduling.step, strict=True
    ):
        model = MODELS[step.model]
        assert served.model_name == step.model
        assert (dict(served.input_map), dict(served.output_map)) == (step.inputs, step.outputs)
        for tensor in model.inputs:
            outside = kinds[step.inputs[tensor.name]]
            assert (outside.dtype, outside.dims) == (tensor.dtype, tensor.dims)
        for tensor in model.outputs:
            kinds[step.outputs[tensor.name]] = tensor
        assert LIPSYNC.max_batch <= model.max_batch
    assert [kinds[tensor.name] for tensor in LIPSYNC.outputs] == list(LIPSYNC.outputs)
    assert LIPSYNC.max_batch == min(MODELS[step.model].max_batch for step in LIPSYNC_STEPS)
    assert_interface(lipsync_config("abc"), LIPSYNC, whole=False)

    # The client: it sends the inputs and reads the output of the model that it names.
    async with Recorder() as client:
        await client.encode_speech(np.zeros((80, 3000), np.float32), 100)
        await client.encode_crops(np.zeros((2, 256, 256, 3), np.uint8))
        latents = np.zeros((2, 8, 32, 32), np.float16)
        await client.lipsync(latents, np.zeros((2, 50, 384), np.float16))
        await client.parse_faces(np.zeros((2, 512, 512, 3), np.uint8))
    assert set(client.sent) == set(contract) - {"unet", "vae_decoder"}
    for name, arrays in client.sent.items():
        sent = {key: (array.dtype, array.shape[1:]) for key, array in arrays.items()}
        assert sent == {
            tensor.name: (triton_to_np_dtype(tensor.dtype.removeprefix("TYPE_")), tensor.dims)
            for tensor in contract[name].inputs
        }


def test_the_configs_in_git_are_not_overwritten_by_a_build(golden_checkpoint: Path) -> None:
    with pytest.raises(RepositoryError, match="is no model repository"):
        build(golden_checkpoint, IN_GIT / "tensorrt", "tensorrt", "fp16")
