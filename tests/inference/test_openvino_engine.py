"""The backend's engine without Triton around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.inference.backends.musetalk_openvino.openvino_engine import (
    Engine,
    EngineError,
    resolve_precision,
)


@pytest.fixture
def model(one_model: Callable[[], Path]) -> Path:
    return one_model() / "scale" / "1" / "model.onnx"


@pytest.mark.parametrize("sizes", [[1], [8], [1, 1, 1], [3, 5], [2, 1, 4]])
def test_parts_of_a_batch_are_joined_in_order(model: Path, sizes: list[int]) -> None:
    engine = Engine(model, precision="fp32")
    rng = np.random.default_rng(0)
    for _ in range(2):  # the second time the buffers are used again
        parts = [rng.standard_normal((size, 3)).astype(np.float16) for size in sizes]
        result = engine.run({"x": parts})["y"]
        np.testing.assert_array_equal(result, np.concatenate(parts) * 2)
        assert result.dtype == np.float16


def test_batches_with_a_model_of_their_own_give_the_same(model: Path) -> None:
    free = Engine(model, precision="fp32")
    fixed = Engine.configured(model, {"precision": "fp32", "batches": "[2, 4]"})
    assert (fixed.inputs, fixed.outputs) == (free.inputs, free.outputs)
    assert (fixed.batches, free.batches) == ([2, 4], [])
    rng = np.random.default_rng(1)
    for rows in (4, 1, 2, 3, 4, 8, 2):  # in any order, those without one among them
        part = rng.standard_normal((rows, 3)).astype(np.float16)
        np.testing.assert_array_equal(fixed.run({"x": [part]})["y"], free.run({"x": [part]})["y"])


@pytest.mark.parametrize(
    "parameters", [{"batches": "2, 4"}, {"batches": "4"}, {"threads": "two"}, {"batches": "[null]"}]
)
def test_parameters_that_cannot_be_read_are_named(model: Path, parameters: dict[str, str]) -> None:
    with pytest.raises(EngineError, match=f"config.pbtxt beside {model.parent}"):
        Engine.configured(model, parameters)


def test_read_only_parts_are_taken(model: Path) -> None:
    part = np.ones((2, 3), np.float16)
    part.flags.writeable = False
    np.testing.assert_array_equal(Engine(model).run({"x": [part]})["y"], part * 2)


def test_warm_up_leaves_out_a_batch_that_takes_too_long(model: Path) -> None:
    engine = Engine(model, precision="fp32")
    assert engine.warm_up(8, longest=60) == [1, 2, 4, 8]
    assert engine.warm_up(6, longest=60) == [1, 2, 4, 6]
    assert engine.warm_up(8, longest=0) == [1]
    assert engine.warm_up(1) == [1]
    assert engine.inputs == ["x"]
    assert engine.outputs == ["y"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(EngineError, match=f"{path} is missing"):
        Engine(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" * 200])
def test_a_file_that_is_no_model_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=f"{path} cannot be loaded: .") as caught:
        Engine(path).warm_up(1)
    assert "\n" not in str(caught.value)


def test_a_model_without_its_external_data_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [weight],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    Engine(path).warm_up(1)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(EngineError, match=r"model\.onnx"):
        Engine(path)


def test_precision_is_resolved_or_refused() -> None:
    assert resolve_precision("fp32") == "fp32"
    assert resolve_precision("bf16") == "bf16"
    flags = Path("/proc/cpuinfo").read_text().split()
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    assert resolve_precision("auto") == ("bf16" if native else "fp32")
    with pytest.raises(EngineError, match="fp8"):
        resolve_precision("fp8")
