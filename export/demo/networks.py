"""The demo's networks: MuseTalk's architecture in small, and the checkpoint they are saved as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from export.demo.whisper_weights import CONFIG, encoder_state, package_file, read_ct2
from export.staging import staged

UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 96, 192],
    "layers_per_block": 1,
    "cross_attention_dim": 384,
    "attention_head_dim": 2,
    "norm_num_groups": 16,
}
VAE: dict[str, Any] = {
    "encoder_block_out_channels": [16, 16, 16, 16],
    "decoder_block_out_channels": [16, 16, 16, 16],
    "num_encoder_blocks": [1, 2, 2, 2],
    "num_decoder_blocks": [3, 3, 2, 0],
    "latent_channels": 4,
}


def new_vae() -> AutoencoderTiny:
    """An untrained autoencoder, channels last.

    The decoder's last level has no blocks, and its last convolution reads the middle of its nine
    pixels only, also in training: so the export can fold both into one (``export/folding.py``).
    """
    vae = AutoencoderTiny(**VAE).to(memory_format=torch.channels_last)
    last = vae.decoder.layers[-1].weight
    middle = torch.zeros_like(last)
    middle[:, :, 1, 1] = 1
    last.data.mul_(middle)
    last.register_hook(lambda gradient: gradient * middle)
    return vae


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet, channels last."""
    return UNet2DConditionModel(**UNET).to(memory_format=torch.channels_last)


def carry_over(network: nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Take the weights that fit by name and shape; the rest of the network stays as it is.

    Returns:
        Names of the network's weights that were not among them.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def _halves(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().half().contiguous() for key, value in weights.items()}


def save_checkpoint(
    target: Path, unet: UNet2DConditionModel, vae: AutoencoderTiny, scaling: float
) -> None:
    """Write MuseTalk's file layout, fp16: musetalkV15/, sd-vae/, whisper/.

    Args:
        target: folder, made whole or not at all.
        unet: trained on latents times `scaling`.
        vae: the autoencoder.
        scaling: goes into the VAE's config as ``scaling_factor``.
    """
    with staged(target) as folder:
        for name in ("musetalkV15", "sd-vae", "whisper"):
            (folder / name).mkdir(parents=True)
        unet_config = {"_class_name": "UNet2DConditionModel", **UNET}
        (folder / "musetalkV15" / "musetalk.json").write_text(json.dumps(unet_config, indent=2))
        torch.save(_halves(unet.state_dict()), folder / "musetalkV15" / "unet.pth")
        vae_config = {"_class_name": "AutoencoderTiny", **VAE, "scaling_factor": scaling}
        (folder / "sd-vae" / "config.json").write_text(json.dumps(vae_config, indent=2))
        weights = folder / "sd-vae" / "diffusion_pytorch_model.safetensors"
        save_file(_halves(vae.state_dict()), weights)
        (folder / "whisper" / "config.json").write_text(json.dumps(CONFIG, indent=2))
        whisper = _halves(encoder_state(read_ct2(package_file())))
        named = {f"model.encoder.{key}": value for key, value in whisper.items()}
        save_file(named, folder / "whisper" / "model.safetensors")
