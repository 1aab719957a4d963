"""The demo's networks, and weights of networks that were a little different."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from export.demo.networks import UNET, VAE, carry_over, new_unet, new_vae
from export.folding import fold_end


def test_weights_that_fit_are_taken_and_the_others_named() -> None:
    torch.manual_seed(0)
    older = UNet2DConditionModel(**{**UNET, "up_block_types": ["CrossAttnUpBlock2D"] * 3})
    unet = new_unet()
    assert carry_over(unet, older.state_dict()) == []
    assert all(torch.equal(v, older.state_dict()[k]) for k, v in unet.state_dict().items())

    with_blocks = AutoencoderTiny(**{**VAE, "num_decoder_blocks": (3, 3, 2, 1)})
    vae = new_vae()
    missing = carry_over(vae, with_blocks.state_dict())
    assert missing == ["decoder.layers.16.bias", "decoder.layers.16.weight"]
    assert torch.equal(vae.encoder.layers[0].weight, with_blocks.encoder.layers[0].weight)


def test_the_end_of_the_decoder_can_be_folded_after_training() -> None:
    vae = new_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), 1e-2)
    before = vae.decoder.layers[-1].weight.detach().clone()
    vae.decode(torch.randn(1, 4, 4, 4)).sample.square().mean().backward()
    optimiser.step()
    weight = vae.decoder.layers[-1].weight.detach()
    assert not torch.equal(weight, before)
    assert fold_end(vae)
