"""A folded decoder paints what the plain one paints, to the last pixel of the edge."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderTiny

from export.folding import fold_end, picture
from export.modules import VaeDecoderModule


def autoencoder(last_blocks: int, around: float) -> AutoencoderTiny:
    """A small one; `around` scales the last kernel's weights beside its middle."""
    torch.manual_seed(3)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, last_blocks),
    ).eval()
    weight = vae.decoder.layers[-1].weight.data
    middle = weight[:, :, 1, 1].clone()
    weight.mul_(around)
    weight[:, :, 1, 1] = middle
    return vae


def pictures(vae: AutoencoderTiny) -> torch.Tensor:
    with torch.no_grad():
        latents = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(4))
        made: torch.Tensor = vae.decode(latents).sample
    return made


def test_the_same_pictures_edges_and_all() -> None:
    plain = autoencoder(last_blocks=0, around=0.0)
    folded = copy.deepcopy(plain)
    assert fold_end(folded)
    assert folded.decoder.layers[-1].weight.shape == (12, 8, 3, 3)
    want, made = pictures(plain).permute(0, 2, 3, 1).flip(-1), picture(pictures(folded))
    assert made.shape == want.shape == (2, 40, 56, 3)
    torch.testing.assert_close(made, want, rtol=0, atol=1e-6)
    assert want.std() > 0.01  # not two blank pictures


def test_the_module_makes_the_same_faces() -> None:
    plain = autoencoder(last_blocks=0, around=0.0)
    unfolded = copy.deepcopy(plain)
    unfolded.decoder.layers[-1].weight.data[:, :, 0, 0] = 1e-12  # small, and yet not to be folded
    latents = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(4)).half()
    with torch.no_grad():
        made, want = VaeDecoderModule(plain)(latents), VaeDecoderModule(unfolded)(latents)
    assert made.shape == want.shape == (2, 256, 256, 3)
    assert (made.int() - want.int()).abs().max() <= 1
    assert (made != want).float().mean() < 0.001


@pytest.mark.parametrize(("last_blocks", "around"), [(1, 0.0), (0, 1.0)])
def test_what_would_differ_is_left_alone(last_blocks: int, around: float) -> None:
    vae = autoencoder(last_blocks, around)
    layers = vae.decoder.layers
    assert not fold_end(vae)
    assert vae.decoder.layers is layers
