"""Write a randomly initialised checkpoint in MuseTalk's layout: the same files, any size.

It speaks nonsense; it is for measuring speed, for tests and for trying a deployment before the
real weights are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from export.staging import staged
from orchestrator.errors import CheckpointError

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "cross_attention_dim": 384,
}
# Full: musetalk_v15.md section 1. Small: a few milliseconds a frame, for laptops and tests.
_UNET_SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "attention_head_dim": 8,
    },
    "small": {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [32, 64, 64],
        "layers_per_block": 1,
        "norm_num_groups": 16,
        "attention_head_dim": 2,
    },
}
_VAE_SIZES: dict[str, dict[str, Any]] = {
    "full": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2},
    "small": {"block_out_channels": [16, 32, 64, 64], "layers_per_block": 1},
}
_TAESD_SIZES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {
        "encoder_block_out_channels": [16] * 4,
        "decoder_block_out_channels": [16] * 4,
        "num_encoder_blocks": [1, 2, 2, 2],
        "num_decoder_blocks": [2, 2, 2, 1],
    },
}
_WHISPER = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
SIZES = tuple(_UNET_SIZES)


def _halves(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.half().contiguous() for key, value in network.state_dict().items()}


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    save_file(weights, path)
    path.chmod(0o644)  # safetensors makes private files


def _vae(size: str) -> AutoencoderKL:
    sizes = _VAE_SIZES[size]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(sizes["block_out_channels"]),
        layers_per_block=sizes["layers_per_block"],
        norm_num_groups=16 if size == "small" else 32,
        sample_size=256,
        scaling_factor=0.18215,
    )


def _save_diffusers(network: AutoencoderKL | AutoencoderTiny, folder: Path) -> None:
    folder.mkdir()
    config = {"_class_name": type(network).__name__, **network.config}
    public = {key: value for key, value in config.items() if key != "_use_default_values"}
    (folder / "config.json").write_text(json.dumps(public, indent=1))
    _save(_halves(network), folder / "diffusion_pytorch_model.safetensors")


def init(directory: Path, size: str, seed: int = 0) -> None:
    """Write a checkpoint; nothing is left behind when it fails.

    Args:
        directory: where to; must not exist yet.
        size: ``full`` (850 M + 84 M parameters) or ``small``.
        seed: of the random weights.

    Raises:
        CheckpointError: the directory exists already.
        SetupError: the disk is full, or the directory cannot be written.
    """
    if directory.exists():
        raise CheckpointError(f"{directory} exists already", remedy="name a new folder")
    torch.manual_seed(seed)
    with staged(directory) as work:
        (work / "musetalkV15").mkdir()
        config = {**_UNET, **_UNET_SIZES[size]}
        (work / "musetalkV15" / "musetalk.json").write_text(json.dumps(config, indent=1))
        unet = UNet2DConditionModel.from_config(config)
        torch.save(_halves(unet), work / "musetalkV15" / "unet.pth")
        del unet
        _save_diffusers(_vae(size), work / "sd-vae")
        _save_diffusers(AutoencoderTiny(**_TAESD_SIZES[size]), work / "taesd")
        (work / "whisper").mkdir()
        (work / "whisper" / "config.json").write_text(json.dumps(_WHISPER, indent=1))
        encoder = WhisperEncoder(WhisperConfig(**_WHISPER))
        halves = {f"model.encoder.{key}": value for key, value in _halves(encoder).items()}
        _save(halves, work / "whisper" / "model.safetensors")
