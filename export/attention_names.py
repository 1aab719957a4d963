"""Names that older files use for the same weights, and the names that today's classes use."""

from __future__ import annotations

import re

import torch

Weights = dict[str, torch.Tensor]

# The VAE files of Stable Diffusion 1.x name the projections of their attention this way.
_OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "norm": "group_norm",
}
_OLD_KEY = re.compile(
    r"^(.*\.mid_block\.attentions\.\d+)\.(query|key|value|proj_attn|q|k|v|proj_out|norm)\.(.+)$"
)


def modern_vae_names(weights: Weights) -> Weights:
    """Rename old attention weights of an AutoencoderKL, 1x1 convolutions made linear.

    Args:
        weights: state dict with ``query/key/value/proj_attn`` (or ``q/k/v/proj_out``) names;
            weights may be [C, C] or, as convolutions, [C, C, 1, 1].

    Returns:
        The same tensors under ``to_q/to_k/to_v/to_out.0`` as [C, C]; modern files unchanged.
    """
    renamed: Weights = {}
    for key, value in weights.items():
        match = _OLD_KEY.match(key)
        name = f"{match[1]}.{_OLD_ATTENTION[match[2]]}.{match[3]}" if match else key
        if ".attentions." in name and value.ndim == 4 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        renamed[name] = value
    return renamed


def whisper_encoder_names(weights: Weights) -> Weights:
    """Keep the encoder of a Whisper file, with the prefixes of the whole model removed.

    Args:
        weights: state dict of ``WhisperForConditionalGeneration`` (``model.encoder.…``),
            ``WhisperModel`` (``encoder.…``) or of the encoder alone.
    """
    for prefix in ("model.encoder.", "encoder."):
        found = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        if found:
            return found
    return weights
