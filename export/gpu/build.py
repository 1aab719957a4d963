"""Target ``tensorrt`` and ``onnxruntime``: half-precision graphs, engines, and their gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from export import build as builds
from export.gpu.config import WARMUP, onnxruntime_config, tensorrt_config
from export.gpu.device import Device, detect
from export.gpu.engines import (
    Toolkit,
    artefact_key,
    build_engine,
    fill,
    load_toolkit,
    run_engine,
)
from export.gpu.gate import Check, judge
from export.gpu.profiles import BatchRange, batch_ranges
from export.half import to_half
from export.manifest import EngineEntry, Manifest, ModelEntry, model_digest, sha256
from export.model_config import MODELS, Model, to_text
from export.onnx_export import EXTERNAL_DATA, parameter_count, save, store_halves, trace
from export.ranges import observe
from export.sample import audio_windows, parsing_images, shipped_sample
from orchestrator.errors import EngineError, RepositoryError
from orchestrator.speech.mel import log_mel
from orchestrator.speech.windows import step_count

Array = npt.NDArray[Any]
PRECISION = "fp16"
ROWS = 2
"""Rows that the CPU computes at once; more only need more memory."""


@dataclass(frozen=True)
class Gpu:
    """What engines are built with and for."""

    toolkit: Toolkit
    device: Device


class CapturedInputs:
    """Inputs of each model, from real faces and speech through the float32 graphs before it."""

    def __init__(self) -> None:
        self._sample = shipped_sample()
        self._audio: Array = np.asarray(self._sample.audio)
        self._made: dict[str, Array] = {}

    def of(self, model: Model) -> dict[str, Array]:
        """Inputs of a model, batch first; ``vae_encoder`` comes before ``unet`` and so on."""
        if model.name == "whisper_encoder":
            return {"mel": log_mel(self._sample.pcm)[None]}
        if model.name == "vae_encoder":
            return {"crop": self._sample.crops}
        if model.name == "unet":
            return {"latents": self._made["vae_encoder"], "audio": self._audio}
        if model.name == "vae_decoder":
            return {"pred": self._made["unet"]}
        return {"image": parsing_images(self._sample.crops)}

    def keep(self, model: Model, output: Array) -> None:
        """Take a model's output for those that follow."""
        self._made[model.name] = output
        if model.name == "whisper_encoder":
            samples = len(self._sample.pcm)
            hidden = output[0, : step_count(samples)]
            self._audio = audio_windows(hidden, samples, len(self._sample.crops))


class GpuWriter:
    """Writes one model after the other; :attr:`checks` is the table of its gate."""

    def __init__(
        self,
        gpu: Gpu | None,
        repository: Path,
        *,
        fall_back: bool = False,
        progress: builds.Progress = lambda _: None,
    ) -> None:
        """Prepare a build.

        Args:
            gpu: None for target ``onnxruntime``.
            repository: the finished one's place; engines of the old one there that still fit
                are used again, and the timing cache lies beside it.
            fall_back: serve a model without a good engine by ONNX Runtime.
            progress: told what is done, in words.
        """
        self.checks: list[Check] = []
        self._gpu = gpu
        self._repository = repository
        self._fall_back = fall_back
        self._progress = progress
        self._inputs = CapturedInputs()

    def __call__(
        self, folder: Path, name: str, make: Callable[[], nn.Module], operations: float
    ) -> ModelEntry:
        """Write one model; see :class:`export.build.Writer`.

        Raises:
            EngineError: its graph or engine is not accurate, or cannot be built.
        """
        model = MODELS[name]
        version = folder / name / "1"
        version.mkdir(parents=True)
        inputs = self._inputs.of(model)
        reference, parameters = self._write_graph(version, model, make, inputs)
        self._inputs.keep(model, reference)
        self._write_warm_up(folder / name / WARMUP, inputs)
        digest = model_digest(version)
        ranges = batch_ranges(model.max_batch)
        engine = None
        if self._gpu is not None:
            try:
                engine = self._write_engine(version, model, digest, ranges, inputs, reference)
            except EngineError as error:
                if not self._fall_back:
                    raise
                (version / "model.plan").unlink(missing_ok=True)
                self._progress(f"{name}: {error.message}; ONNX Runtime serves it, as asked for")
        if engine is None:
            config = onnxruntime_config(model, ranges)
        else:
            config = tensorrt_config(model, ranges, engine.key)
            for file in (version / "model.onnx", version / EXTERNAL_DATA):
                file.unlink(missing_ok=True)  # the engine holds the weights
        (folder / name / "config.pbtxt").write_text(to_text(config))
        return ModelEntry(digest, parameters, operations, config.platform, engine)

    def _write_graph(
        self,
        version: Path,
        model: Model,
        make: Callable[[], nn.Module],
        inputs: Mapping[str, Array],
    ) -> tuple[Array, int]:
        """Write ``model.onnx`` in its precision; the float32 graph's output, and its size."""
        output = model.outputs[0].name
        graph = trace(make(), model)
        parameters = parameter_count(graph)
        full = observe(graph, inputs, ROWS, version)
        if model.precision == "fp32":
            store_halves(graph)
        else:
            self._progress(f"{model.name}: {to_half(graph, full.largest)}")
            half = observe(graph, inputs, ROWS, version)
            self._pass([judge(model, full.outputs[output], half.outputs[output], profile=-1)])
        save(graph, version)
        return full.outputs[output], parameters

    def _write_engine(
        self,
        version: Path,
        model: Model,
        digest: str,
        ranges: tuple[BatchRange, ...],
        inputs: Mapping[str, Array],
        reference: Array,
    ) -> EngineEntry:
        """Build or take over ``model.plan``, and let it pass the gate."""
        assert self._gpu is not None
        toolkit, device = self._gpu.toolkit, self._gpu.device
        key = artefact_key(toolkit, device, digest, ranges)
        plan = self._old_engine(model.name, key)
        if plan is None:
            self._progress(f"{model.name}: building its engine")
            cache = timing_cache(self._repository, self._gpu)
            cache.parent.mkdir(parents=True, exist_ok=True)
            plan = build_engine(toolkit, version / "model.onnx", model, ranges, cache)
        else:
            self._progress(f"{model.name}: engine {key} is there already")
        self._pass(
            [
                judge(model, fill(reference, size), output, profile=number)
                for number, size, output in run_engine(toolkit, plan, model, inputs, ranges)
            ]
        )
        (version / "model.plan").write_bytes(plan)
        return EngineEntry(
            key=key,
            tensorrt=toolkit.version,
            gpu=str(device),
            sm=device.sm,
            mig=device.mig,
            profiles=[list(astuple(one)) for one in ranges],
            sha256=sha256(version / "model.plan"),
        )

    def _old_engine(self, name: str, key: str) -> bytes | None:
        """The engine of that key in the repository that is about to be replaced."""
        path = self._repository / name / "1" / "model.plan"
        try:
            entry = Manifest.read(self._repository).models[name]
            if entry.engine is None or entry.engine.key != key or not path.is_file():
                return None
        except (RepositoryError, KeyError):
            return None
        return path.read_bytes() if sha256(path) == entry.engine.sha256 else None

    def _pass(self, checks: list[Check]) -> None:
        self.checks += checks
        for check in checks:
            if not check.passed:
                where = "its graph" if check.profile < 0 else f"profile {check.profile}"
                raise EngineError(
                    f"{check.model}: {where} at batch {check.batch}: {check.verdict} "
                    f"(mean {check.mean:.2g}, maximum {check.maximum:.2g})",
                    remedy="build again, or allow --fall-back",
                )

    @staticmethod
    def _write_warm_up(folder: Path, inputs: Mapping[str, Array]) -> None:
        """One row of each input, as Triton repeats it for a batch."""
        folder.mkdir()
        for name, array in inputs.items():
            (folder / name).write_bytes(np.ascontiguousarray(array[0]).tobytes())


def timing_cache(repository: Path, gpu: Gpu) -> Path:
    """File of measured tactics: of one TensorRT version and one kind of GPU."""
    name = (
        f"{gpu.toolkit.version}-sm{gpu.device.sm}{'-' + gpu.device.mig if gpu.device.mig else ''}"
    )
    return repository.parent / f"{repository.name}.timing" / f"{name}.cache"


def fits(manifest: Manifest, gpu: Gpu | None) -> bool:
    """Whether the engines of a repository run here; those of ONNX Runtime run anywhere."""
    engines = [entry.engine for entry in manifest.models.values() if entry.engine is not None]
    if gpu is None:
        return not engines
    here = (gpu.toolkit.version, gpu.device.sm, gpu.device.mig)
    return all((one.tensorrt, one.sm, one.mig) == here for one in engines)


def find_gpu(target: str) -> Gpu | None:
    """What a target needs of this machine.

    Raises:
        SetupError: TensorRT, Polygraphy or the GPU is missing.
    """
    if target != "tensorrt":
        return None
    return Gpu(load_toolkit(), detect())


def build_gpu(
    checkpoint: Path,
    repository: Path,
    target: str,
    writer: GpuWriter,
    *,
    precision: str = "auto",
    decoder: str = "full",
    progress: builds.Progress = lambda _: None,
) -> Manifest:
    """Build a repository for a GPU; see :func:`export.build.build`.

    Raises:
        EngineError: a model failed; nothing was published, ``writer.checks`` says how far off
            it is.
    """
    builds.check_options(target, precision, decoder)
    return builds.build(checkpoint, repository, target, PRECISION, decoder, progress, write=writer)
