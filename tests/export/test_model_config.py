"""config.pbtxt: typed definitions, written and read through Triton's own protobuf."""

from __future__ import annotations

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.model_config import MODELS, cpu_config, from_text, lipsync_config, to_text

# design.md section 3, written out once more: the contract, not the code.
CONTRACT = {
    "whisper_encoder": {"mel": ("FP32", [80, 3000]), "hidden_states": ("FP16", [-1, 5, 384])},
    "vae_encoder": {"crop": ("UINT8", [256, 256, 3]), "latents": ("FP16", [8, 32, 32])},
    "unet": {
        "latents": ("FP16", [8, 32, 32]),
        "audio": ("FP16", [50, 384]),
        "pred": ("FP16", [4, 32, 32]),
    },
    "vae_decoder": {"pred": ("FP16", [4, 32, 32]), "face": ("UINT8", [256, 256, 3])},
    "lipsync": {
        "latents": ("FP16", [8, 32, 32]),
        "audio": ("FP16", [50, 384]),
        "face": ("UINT8", [256, 256, 3]),
    },
    "face_parsing": {"image": ("UINT8", [512, 512, 3]), "labels": ("UINT8", [512, 512])},
}


def config(name: str) -> pb.ModelConfig:
    return lipsync_config("abc") if name == "lipsync" else cpu_config(MODELS[name], "auto")


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    made = config(name)
    tensors = {
        tensor.name: (pb.DataType.Name(tensor.data_type)[5:], list(tensor.dims))
        for tensor in (*made.input, *made.output)
    }
    assert made.name == name and made.max_batch_size > 0
    assert tensors == CONTRACT[name]


@pytest.mark.parametrize("name", CONTRACT)
def test_round_trip(name: str) -> None:
    made = config(name)
    assert from_text(to_text(made)) == made


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_cpu_models_batch_and_carry_their_precision(precision: str) -> None:
    for model in MODELS.values():
        made = cpu_config(model, precision)
        assert made.backend == "musetalk_openvino"
        assert made.HasField("dynamic_batching")
        assert [group.kind for group in made.instance_group] == [pb.ModelInstanceGroup.KIND_CPU]
        wanted = "fp32" if model.name == "face_parsing" else precision
        assert made.parameters["precision"].string_value == wanted
        # Queue policies stall the batcher of the embedded server (design.md section 7).
        assert not made.dynamic_batching.HasField("default_queue_policy")
        assert made.dynamic_batching.priority_levels == 0


def test_small_networks_that_run_every_frame_name_their_usual_batches() -> None:
    for name, model in MODELS.items():
        small = cpu_config(model, "auto", small=True).parameters
        assert ("batches" in small) == (name in ("unet", "vae_decoder"))
        assert "batches" not in cpu_config(model, "auto").parameters
    assert cpu_config(MODELS["unet"], "auto", small=True).parameters["batches"].string_value == (
        "[2, 4, 8]"
    )
