"""Triton's Python-based backend ``musetalk_openvino``: serves every ONNX model of a repository.

A model names it by ``backend: "musetalk_openvino"`` and holds ``1/model.onnx``. All requests
that Triton's batcher hands over are computed in one inference.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from openvino_engine import Engine, EngineError  # type: ignore[import-not-found]

MODEL_FILE = "model.onnx"
_TAKEN = b"used_dltensor"
_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = [ctypes.py_object, ctypes.c_char_p]


class TritonPythonModel:
    """One loaded model; Triton calls its methods from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the model and warm it up; the server is not ready before that.

        Args:
            args: Triton's description of the instance.

        Raises:
            pb_utils.TritonModelException: one line that names the file and what is wrong.
        """
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / MODEL_FILE
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        if "MUSETALK_BRIEF" in os.environ:  # they pay off after a minute of speech
            parameters.pop("batches", None)
        try:
            self._engine = Engine.configured(path, parameters)
            self._check_names(config)
            self._names = self._engine.inputs
            warm = self._engine.warm_up(max(1, int(config["max_batch_size"])))
        except EngineError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        pb_utils.Logger.log_info(
            f"{args['model_name']} computes in {self._engine.precision}, "
            f"warm for batches of {', '.join(map(str, warm))}, "
            f"with a model of their own for {', '.join(map(str, self._engine.batches)) or 'none'}"
        )

    def _check_names(self, config: dict[str, Any]) -> None:
        """Refuse a config.pbtxt that names other tensors than the graph."""
        for kind, named, there in (
            ("input", config["input"], self._engine.inputs),
            ("output", config["output"], self._engine.outputs),
        ):
            wanted = sorted(tensor["name"] for tensor in named)
            if wanted != sorted(there):
                raise EngineError(
                    f"model file {self._engine.path} has the {kind}s {sorted(there)}, "
                    f"its config.pbtxt names {wanted}"
                )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests of one batch with one inference.

        Args:
            requests: Triton's requests, each with its own batch of rows.

        Returns:
            One response for each request, in order.
        """
        parts = {name: [_input(request, name) for request in requests] for name in self._names}
        rows = [len(part) for part in parts[self._names[0]]]
        try:
            results = self._engine.run(parts)
        except RuntimeError as error:
            failure = pb_utils.TritonError(f"{self._engine.path}: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        responses = []
        start = 0
        for request, count in zip(requests, rows, strict=True):
            own = {name: array[start : start + count] for name, array in results.items()}
            responses.append(_response(request, own))
            start += count
        return responses


def _input(request: Any, name: str) -> np.ndarray[Any, Any]:
    """An input where it lies in shared memory.

    By DLPack, and so are the outputs: the bindings of Triton up to 2.51 read the item size of
    a NumPy 2 array as zero, which gives ``as_numpy`` wrong strides and outputs no bytes.
    """
    array: np.ndarray[Any, Any] = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))
    return array


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Any:
    """An output of Triton's that reads the array where it lies."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton marks the capsule as taken by a name that NumPy does not know, which then complains
    # on standard error each time; the agreed name keeps it silent.
    _set_capsule_name(capsule, _TAKEN)
    return tensor


def _response(request: Any, results: dict[str, np.ndarray[Any, Any]]) -> Any:
    """The part of the batch that one request asked for."""
    try:
        steps = _steps(request)
    except ValueError as error:  # this one's fault: the others of the batch get their answers
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        )
    wanted = request.requested_output_names()
    # Triton copies each array once, out of this process.
    return pb_utils.InferenceResponse(
        [
            _tensor(name, array if steps is None else np.ascontiguousarray(array[:, :steps]))
            for name, array in results.items()
            if name in wanted
        ]
    )


def _steps(request: Any) -> int | None:
    """Request parameter ``steps``: how many rows of the second axis to send back.

    Raises:
        ValueError: it is no number, or too small.
    """
    text = request.parameters()
    steps = json.loads(text).get("steps") if text else None
    if steps is None:
        return None
    if not str(steps).isdecimal() or int(steps) < 1:
        raise ValueError(f"steps is {steps}, not 1 or more")
    return int(steps)
