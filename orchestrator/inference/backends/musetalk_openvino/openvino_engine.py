"""One ONNX model compiled by OpenVINO for this CPU: whole batches in, whole batches out.

Triton's stub process imports this file from the backend's own folder, in a container that
holds nothing else of the project: it may import only numpy and OpenVINO.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

Array = npt.NDArray[np.generic]

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""The repository's names of precisions in OpenVINO's words."""


class EngineError(Exception):
    """A model file that cannot be served; one line that names the file."""


def resolve_precision(wanted: str) -> str:
    """Turn the ``precision`` parameter of a model into what this CPU will compute in.

    Args:
        wanted: ``auto``, ``fp32`` or ``bf16``. ``auto`` is bf16 where the CPU multiplies
            bf16 natively (AMX or AVX512-BF16), fp32 elsewhere: emulated bf16 is slower.

    Returns:
        ``fp32`` or ``bf16``.

    Raises:
        EngineError: another word.
    """
    if wanted == "auto":
        offered = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "bf16" if "BF16" in offered else "fp32"
    if wanted not in PRECISIONS:
        raise EngineError(f"precision {wanted!r} is unknown: use auto, fp32 or bf16")
    return wanted


class Engine:
    """A compiled model with one inference request, used by one thread.

    One stream with all cores: a batch is finished as early as the machine can, and a second
    stream would only double the memory (measured: two streams take twice as long a batch).

    A batch size known when the model is compiled is faster: only then does OpenVINO fuse
    normalisation, affine and activation, which takes a sixth off the demo's UNet. But each such
    model holds the packed weights again, so only small networks get them, for the usual sizes;
    everything else is computed by one whose batch axis is free.
    """

    def __init__(
        self,
        path: Path,
        *,
        precision: str = "auto",
        threads: int = 0,
        batches: Sequence[int] = (),
    ) -> None:
        """Read and compile a model.

        Args:
            path: ``model.onnx``; its external data lies beside it.
            precision: ``auto``, ``fp32`` or ``bf16``.
            threads: 0 uses every core that this process may run on.
            batches: sizes that get a compiled model of their own.

        Raises:
            EngineError: the file is missing, unreadable or not a model.
        """
        self.path = path
        self.precision = resolve_precision(precision)
        if not path.is_file():
            raise EngineError(f"model file {path} is missing")
        core = ov.Core()
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            model = core.read_model(path)
            compiled = core.compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
            self._requests: dict[int, ov.InferRequest] = {}
            for batch in batches:
                fixed = model.clone()
                fixed.reshape({port: [batch, *_fixed_dims(port)] for port in fixed.inputs})
                own = core.compile_model(fixed, "CPU", options)
                self._requests[batch] = own.create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"model file {path} cannot be loaded: {_cause(error)}") from error
        self._staging: dict[str, Array] = {}
        self._inputs = {port.any_name: port for port in compiled.inputs}
        self._outputs = [port.any_name for port in compiled.outputs]

    @classmethod
    def configured(cls, path: Path, parameters: Mapping[str, str]) -> Engine:
        """An engine by the parameters of its config.pbtxt.

        Args:
            path: ``model.onnx``.
            parameters: ``precision``, ``threads``, ``batches``; each has a default.

        Raises:
            EngineError: as the constructor does, or a parameter cannot be read.
        """
        try:
            threads = int(parameters.get("threads", "0"))
            batches = [int(size) for size in json.loads(parameters.get("batches", "[]"))]
        except (ValueError, TypeError) as error:
            raise EngineError(f"config.pbtxt beside {path.parent}: {error}") from error
        precision = parameters.get("precision", "auto")
        return cls(path, precision=precision, threads=threads, batches=batches)

    @property
    def batches(self) -> list[int]:
        """Sizes that have a compiled model of their own."""
        return list(self._requests)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return list(self._inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return self._outputs

    def warm_up(self, largest: int, *, longest: float = 0.3) -> list[int]:
        """Run zeros, so that no request pays for the first time of its batch size.

        Args:
            largest: the largest batch.
            longest: seconds that a batch may take. What takes longer is left out: its first time
                takes an eighth more, which nobody notices, while all of Whisper's would hold the
                server's start up by two seconds.

        Returns:
            The batch sizes that ran.

        Raises:
            EngineError: the model does not run.
        """
        self._run_zeros(1)
        once = self._run_zeros(1)
        sizes = [1]
        for size in sorted({*(2**power for power in range(1, largest.bit_length())), largest}):
            if size > 1 and once * size <= longest:
                self._run_zeros(size)
                sizes.append(size)
        return sizes

    def _run_zeros(self, batch: int) -> float:
        """Compute a batch of zeros; return how many seconds it took."""
        zeros: dict[str, Sequence[Array]] = {
            name: [np.zeros([batch, *_fixed_dims(port)], port.element_type.to_dtype())]
            for name, port in self._inputs.items()
        }
        start = time.perf_counter()
        try:
            self.run(zeros)
        except RuntimeError as error:
            raise EngineError(f"model file {self.path} does not run: {_cause(error)}") from error
        return time.perf_counter() - start

    def run(self, inputs: Mapping[str, Sequence[Array]]) -> dict[str, Array]:
        """Compute one batch.

        Args:
            inputs: for each input the parts of the batch, in order, each [n_i, ...]. Several
                are joined in a buffer that is kept; a single writeable one is read in place.

        Returns:
            For each output an array [sum of n_i, ...]. It is the engine's own memory, valid
            until the next call.

        Raises:
            RuntimeError: OpenVINO refused the batch.
        """
        tensors = {name: self._join(name, parts) for name, parts in inputs.items()}
        rows = len(next(iter(tensors.values())))
        request = self._requests.get(rows, self._request)
        results = request.infer(tensors, share_inputs=True, share_outputs=True)
        return {name: results[index] for index, name in enumerate(self._outputs)}

    def _join(self, name: str, parts: Sequence[Array]) -> Array:
        """All parts along the batch axis, without a copy where there is only one."""
        if len(parts) == 1:
            return parts[0]
        rows = sum(len(part) for part in parts)
        buffer = self._staging.get(name)
        if buffer is None or len(buffer) < rows or buffer.shape[1:] != parts[0].shape[1:]:
            buffer = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
            self._staging[name] = buffer
        return np.concatenate(parts, out=buffer[:rows])


def _fixed_dims(port: ov.Output | ov.ConstOutput) -> list[int]:
    """Dimensions of an input after the batch; a free one counts as 1."""
    dims = list(port.get_partial_shape())[1:]
    return [int(dim.get_length()) if dim.is_static else 1 for dim in dims]


def _cause(error: RuntimeError) -> str:
    """The telling line of an OpenVINO error, whose first lines name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[0]
