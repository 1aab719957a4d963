"""The networks as Triton serves them: pre- and post-processing are part of the graph.

Names, dtypes and shapes are those of design.md section 3; formulas are MuseTalk's
(musetalk_v15.md sections 1 and 4). Tensors between the models are float16, arithmetic is
float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from export.bisenet import BiSeNet
from export.checkpoint import Vae
from export.folding import fold_end, picture

CROP = 256
AUDIO_TOKENS = 50
MEL_BINS, MEL_FRAMES = 80, 3000
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def positional_encoding(tokens: int, width: int) -> torch.Tensor:
    """Sinusoidal positional encoding, float32 [tokens, width].

    PE[p, 2i] = sin(p * 10000^(-2i/width)), PE[p, 2i+1] = cos of the same.
    """
    position = torch.arange(tokens, dtype=torch.float32)[:, None]
    exponent = torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width)
    # exp by way of float64: in float32 its last digits differ from one processor to the next.
    angle = position * torch.exp(exponent.double()).float()
    encoding = torch.zeros(tokens, width)
    encoding[:, 0::2] = torch.sin(angle)
    encoding[:, 1::2] = torch.cos(angle)
    return encoding


class WhisperModule(nn.Module):
    """``mel`` FP32 [B,80,3000] -> ``hidden_states`` FP16 [B,1500,layers+1,width].

    The states are the embedded input, the output of each layer but the last, and the
    normalised output of the last, as ``transformers`` returns them.
    """

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Stack of the hidden states, time first."""
        encoder = self.encoder
        hidden = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden))
        hidden = hidden.permute(0, 2, 1) + encoder.embed_positions.weight
        states = [hidden]
        for layer in encoder.layers:
            output = layer(hidden, attention_mask=None)
            hidden = output[0] if isinstance(output, tuple) else output
            states.append(hidden)
        states[-1] = encoder.layer_norm(hidden)
        return torch.stack(states, dim=2).half()


class VaeEncoderModule(nn.Module):
    """``crop`` UINT8 [B,256,256,3] BGR -> ``latents`` FP16 [B,8,32,32], masked then reference.

    The lower half of the masked copy is black before normalisation. The distribution's mean is
    taken where MuseTalk draws a sample: the same crop always gives the same latents.
    """

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        """Encode both copies as one batch."""
        # TensorRT takes uint8 only into a cast, so that comes first.
        image = crop.float().flip(-1).permute(0, 3, 1, 2) / 255.0
        rows = torch.arange(CROP)[:, None] < CROP // 2
        both = torch.cat([image * rows, image]) * 2.0 - 1.0
        encoded: Any = self.vae.encode(both)
        if isinstance(self.vae, AutoencoderKL):
            latents = encoded.latent_dist.mean
        else:
            latents = encoded.latents
        latents = latents * self.vae.config["scaling_factor"]
        batch = crop.shape[0]
        return torch.cat([latents[:batch], latents[batch:]], dim=1).half()


class UnetModule(nn.Module):
    """``latents`` FP16 [B,8,32,32], ``audio`` FP16 [B,50,384] -> ``pred`` FP16 [B,4,32,32].

    Positional encoding is added here. The timestep is always 0, so its embedding is computed
    once and the whole time path becomes constants.
    """

    encoding: torch.Tensor
    time: torch.Tensor

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        width = unet.config["cross_attention_dim"]
        self.register_buffer("encoding", positional_encoding(AUDIO_TOKENS, width))
        embedding = unet.get_time_embed(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
        self.register_buffer("time", embedding)

        def constant_time(**_: object) -> torch.Tensor:
            return self.time

        # One row instead of one a frame: it broadcasts over the batch.
        unet.get_time_embed = constant_time

    def forward(self, latents: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """One pass; MuseTalk is no diffusion."""
        tokens = audio.float() + self.encoding
        pred: torch.Tensor = self.unet(
            latents.float(), torch.zeros(1, dtype=torch.long), encoder_hidden_states=tokens
        ).sample
        return pred.half()


class VaeDecoderModule(nn.Module):
    """``pred`` FP16 [B,4,32,32] -> ``face`` UINT8 [B,256,256,3] BGR."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae
        self.blocks = isinstance(vae, AutoencoderTiny) and fold_end(vae)

    def forward(self, pred: torch.Tensor) -> torch.Tensor:
        """Decode, clamp to [0, 1], round to 8 bits."""
        image = self.vae.decode(pred.float() / self.vae.config["scaling_factor"]).sample
        levels: torch.Tensor = ((image / 2 + 0.5).clamp(0, 1) * 255).round()
        # Blocks become pictures last: until then everything is part of the convolution.
        bgr = picture(levels) if self.blocks else levels.permute(0, 2, 3, 1).flip(-1)
        return bgr.to(torch.uint8)


class FaceParsingModule(nn.Module):
    """``image`` UINT8 [B,512,512,3] RGB -> ``labels`` UINT8 [B,512,512]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: BiSeNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class of each pixel."""
        pixels = image.float().permute(0, 3, 1, 2) / 255.0
        scores: torch.Tensor = self.network((pixels - self.mean) / self.std)
        # TensorRT makes uint8 only from floats.
        return scores.argmax(1).float().to(torch.uint8)
