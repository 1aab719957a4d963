"""``model_repository/cpu``: what is in git is what its manifest and the definitions say."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from export.manifest import Manifest
from export.model_config import LIPSYNC, LIPSYNC_STEPS, MODELS, from_text

REPOSITORY = Path(__file__).parent.parent.parent / "model_repository" / "cpu"
NUMBERS = {"TYPE_FP16": 10, "TYPE_FP32": 1, "TYPE_UINT8": 2}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.read(REPOSITORY)


def test_the_files_are_those_of_the_manifest(manifest: Manifest) -> None:
    assert set(manifest.models) | set(manifest.missing) == set(MODELS)
    assert manifest.damaged(REPOSITORY) is None


def test_it_is_small_enough_to_be_cloned() -> None:
    files = [path for path in REPOSITORY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6


def test_configs_graphs_and_definitions_agree(manifest: Manifest) -> None:
    for name in manifest.models:
        model = MODELS[name]
        config = from_text((REPOSITORY / name / "config.pbtxt").read_text())
        graph = onnx.load(REPOSITORY / name / "1" / "model.onnx").graph
        assert config.max_batch_size == model.max_batch
        for definition, configured, exported in (
            (model.inputs, config.input, graph.input),
            (model.outputs, config.output, graph.output),
        ):
            assert [t.name for t in configured] == [t.name for t in definition]
            assert [tuple(t.dims) for t in configured] == [t.dims for t in definition]
            for tensor, value in zip(definition, exported, strict=True):
                shape = value.type.tensor_type.shape.dim
                assert value.name == tensor.name
                assert value.type.tensor_type.elem_type == NUMBERS[tensor.dtype]
                assert shape[0].dim_param, "the batch is dynamic"
                for wanted, dim in zip(tensor.dims, shape[1:], strict=True):
                    assert wanted in (-1, dim.dim_value)


def test_the_ensemble_connects_models_that_fit() -> None:
    config = from_text((REPOSITORY / "lipsync" / "config.pbtxt").read_text())
    tensors = {tensor.name: tensor for tensor in LIPSYNC.inputs}
    for step, written in zip(LIPSYNC_STEPS, config.ensemble_scheduling.step, strict=True):
        model = MODELS[step.model]
        assert written.model_name == step.model
        assert dict(written.input_map) == step.inputs
        assert model.max_batch >= LIPSYNC.max_batch
        for tensor in model.inputs:
            given = tensors[step.inputs[tensor.name]]
            assert (given.dtype, given.dims) == (tensor.dtype, tensor.dims)
        tensors |= {step.outputs[tensor.name]: tensor for tensor in model.outputs}
    for tensor in LIPSYNC.outputs:
        assert tensors[tensor.name] == tensor
