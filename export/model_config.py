"""Triton's config.pbtxt from typed definitions, written and read through its own protobuf.

The dataclasses mirror the messages of ``model_config.proto``; only what this project sets is
here. ``MODELS`` is the one place that holds names, dtypes, shapes and batch limits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

CPU_BACKEND = "musetalk_openvino"
MAX_BATCH = 8
SMALL_BYTES = 64_000_000
"""Weights that may lie in memory once more for each of the usual batch sizes."""


@dataclass(frozen=True)
class Tensor:
    """One input or output; dimensions without the batch (``ModelInput``, ``ModelOutput``)."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """One model's interface, the same for every target.

    Attributes:
        precision: the only one this model is served in; None leaves it to the build.
        batches: the usual sizes of a batch, for a model that is asked for every frame.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int = MAX_BATCH
    precision: str | None = None
    batches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step of an ensemble: its model and how its tensors are called outside."""

    model: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


_LATENTS = Tensor("latents", "TYPE_FP16", (8, 32, 32))
_AUDIO = Tensor("audio", "TYPE_FP16", (50, 384))
_PRED = Tensor("pred", "TYPE_FP16", (4, 32, 32))
_FACE = Tensor("face", "TYPE_UINT8", (256, 256, 3))
_EACH_FRAME = (2, 4, MAX_BATCH)

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            "whisper_encoder",
            (Tensor("mel", "TYPE_FP32", (80, 3000)),),
            # As many of the 1500 steps as the request's `steps` parameter asks for.
            (Tensor("hidden_states", "TYPE_FP16", (-1, 5, 384)),),
        ),
        Model("vae_encoder", (Tensor("crop", "TYPE_UINT8", (256, 256, 3)),), (_LATENTS,)),
        Model("unet", (_LATENTS, _AUDIO), (_PRED,), batches=_EACH_FRAME),
        Model("vae_decoder", (_PRED,), (_FACE,), batches=_EACH_FRAME),
        Model(
            "face_parsing",
            (Tensor("image", "TYPE_UINT8", (512, 512, 3)),),
            (Tensor("labels", "TYPE_UINT8", (512, 512)),),
            max_batch=4,
            # MuseTalk's rule: edges of the mask move in bf16, and it runs once an avatar.
            precision="fp32",
        ),
    )
}
LIPSYNC = Model("lipsync", (_LATENTS, _AUDIO), (_FACE,))
LIPSYNC_STEPS = (
    Step("unet", {"latents": "latents", "audio": "audio"}, {"pred": "pred"}),
    Step("vae_decoder", {"pred": "pred"}, {"face": "face"}),
)


def base_config(model: Model) -> pb.ModelConfig:
    """What the config of a model says on every target: names, types, shapes, largest batch."""
    config = pb.ModelConfig(name=model.name, max_batch_size=model.max_batch)
    for tensor in model.inputs:
        config.input.add(
            name=tensor.name, data_type=pb.DataType.Value(tensor.dtype), dims=tensor.dims
        )
    for tensor in model.outputs:
        config.output.add(
            name=tensor.name, data_type=pb.DataType.Value(tensor.dtype), dims=tensor.dims
        )
    return config


def cpu_config(model: Model, precision: str, *, small: bool = False) -> pb.ModelConfig:
    """Config of a model that the OpenVINO backend serves.

    Args:
        model: the interface.
        precision: ``auto``, ``fp32`` or ``bf16``; resolved by the backend when it loads. A
            model with a precision of its own keeps that.
        small: its weights are at most ``SMALL_BYTES``: the usual batch sizes are compiled one
            by one, which is faster.
    """
    config = base_config(model)
    config.backend = CPU_BACKEND
    if small and model.batches:
        config.parameters["batches"].string_value = json.dumps(model.batches)
    # Triton batches whatever waits while the instance is busy; waiting on purpose only adds
    # latency when one instance owns all cores.
    config.dynamic_batching.SetInParent()
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    config.parameters["precision"].string_value = model.precision or precision
    return config


def lipsync_config(weights_id: str) -> pb.ModelConfig:
    """Config of the ensemble: ``unet``, then ``vae_decoder``.

    Args:
        weights_id: of the manifest. Clients on other machines read it here, where no manifest
            reaches them, and throw away what they cached of other weights.
    """
    config = base_config(LIPSYNC)
    config.platform = "ensemble"
    config.parameters["weights_id"].string_value = weights_id
    for step in LIPSYNC_STEPS:
        config.ensemble_scheduling.step.add(
            model_name=step.model,
            model_version=-1,
            input_map=step.inputs,
            output_map=step.outputs,
        )
    return config


def to_text(config: pb.ModelConfig) -> str:
    """The text of config.pbtxt."""
    return str(text_format.MessageToString(config))


def from_text(text: str) -> pb.ModelConfig:
    """Parse the text of a config.pbtxt."""
    return text_format.Parse(text, pb.ModelConfig())
