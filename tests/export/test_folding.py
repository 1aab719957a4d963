"""A folded decoder paints what the plain one paints, to the last pixel of the edge."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import nn

from export.folding import fold_end


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
        made: torch.Tensor = vae.decode(torch.randn(2, 4, 5, 7, generator=seeded())).sample
    return made


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_the_same_pictures_edges_and_all() -> None:
    plain = autoencoder(last_blocks=0, around=0.0)
    folded = copy.deepcopy(plain)
    fold_end(folded)
    assert isinstance(folded.decoder.layers[-1], nn.PixelShuffle)
    assert folded.decoder.layers[-2].weight.shape == (12, 8, 3, 3)
    want, made = pictures(plain), pictures(folded)
    assert made.shape == want.shape == (2, 3, 40, 56)
    torch.testing.assert_close(made, want, rtol=0, atol=1e-6)
    assert want.std() > 0.01  # not two blank pictures


@pytest.mark.parametrize(("last_blocks", "around"), [(1, 0.0), (0, 1.0)])
def test_what_would_differ_is_left_alone(last_blocks: int, around: float) -> None:
    vae = autoencoder(last_blocks, around)
    layers = vae.decoder.layers
    fold_end(vae)
    assert vae.decoder.layers is layers
