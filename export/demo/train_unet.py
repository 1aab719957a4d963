"""The UNet, by MuseTalk's recipe.

It gets the latents of the frame with its lower half black and those of a reference frame of the
same person, and the audio of the frame; it predicts the frame's latents in one pass at timestep
0. The loss is L1 in latents, heavier around the mouth, later with L1 on the decoded pixels of the
mouth and on what a reader sees in the latents; and an auxiliary head, dropped afterwards, that
must name the mouth's parameters from the middle of the UNet.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

from export.demo.networks import carry_over, new_unet
from export.demo.pairs import Pairs
from export.demo.reader import train_reader
from export.demo.run import CHANNELS_LAST, SAVE_EVERY, Run, autocast, clock, pixels, rate
from export.demo.start import Start

PEAK, PEAK_FROM_START = 1.2e-3, 4e-4
"""Learning rates, of an untrained network and of one that is trained on."""


def train_unet(
    run: Run, vae: AutoencoderTiny, seconds: float, batch: int = 12, start: Start | None = None
) -> UNet2DConditionModel:
    """The UNet; saves the checkpoint's state every two minutes.

    Args:
        run: where data and state are.
        vae: frozen.
        seconds: of training in all; pixels and the reader count from 35 % on.
        batch: frames a step.
        start: trained networks: pixels and reader count at once, the learning rate is low.
    """
    torch.manual_seed(1)
    unet = new_unet()
    if start is not None and (untrained := carry_over(unet, start.unet)):
        run.log(f"unet: {len(untrained)} weights are not in the checkpoint and start untrained")
    peak, alone = (PEAK, 0.35) if start is None else (PEAK_FROM_START, 0.0)
    head = nn.Linear(unet.config["block_out_channels"][-1], 6)
    middle: dict[str, torch.Tensor] = {}
    unet.mid_block.register_forward_hook(lambda _m, _i, out: middle.update(x=out))
    parameters = [*unet.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    state = run.load("unet")
    if state is not None:
        unet.load_state_dict(state["unet"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    if spent >= seconds:
        return unet.eval()
    pairs = Pairs(run, vae, None if start is None else start.scaling)
    scaling = pairs.scaling
    reader = train_reader(run, pairs)
    weight = torch.full((1, 1, 32, 32), 0.3)
    weight[:, :, 16:] = 1.0
    weight[:, :, 19:30, 9:23] = 4.0
    weight /= weight.mean()
    focus = torch.ones(1, 1, 128, 128)
    focus[:, :, 24:104, 16:112] = 3.0
    vae.requires_grad_(False)
    rng = np.random.default_rng(step)
    saved = spent
    sums: list[tuple[float, ...]] = []
    unet.train()
    while spent < seconds:
        began = clock()
        k = rng.integers(0, len(pairs), batch)
        for group in optimiser.param_groups:
            group["lr"] = rate(peak, step, spent / seconds)
        made = pairs.predict(unet, k)
        in_latents = ((made - pairs.want(k)).abs() * weight).mean()
        named = (head(middle["x"].float().mean((2, 3))) - pairs.mouths(k)).abs().mean()
        loss = in_latents + 2 * named
        in_pixels = read = torch.zeros(())
        if spent >= alone * seconds:
            real = pixels(pairs.images[k, 128:256, 64:192])
            with autocast(run.bf16):
                part = (made[:, :, 16:32, 8:24] / scaling).contiguous(memory_format=CHANNELS_LAST)
                drawn = vae.decode(part).sample.float()
            in_pixels = ((drawn - real).abs() * focus).mean()
            read = (reader(made) - pairs.spoken(k)).abs().mean()
            loss = loss + 4 * in_pixels + 2 * read
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        spent += clock() - began
        run.progress("unet", spent / seconds)
        sums.append((in_latents.item(), named.item(), in_pixels.item(), read.item()))
        if step % 100 == 0:
            a, b, c, d = np.mean(sums[-100:], 0)
            run.note(phase="unet", step=step, spent=spent, latent=a, mouth=b, pixel=c, read=d)
            run.log(
                f"unet {step}: {spent:.0f} s, "
                f"latent {a:.4f} mouth {b:.4f} pixel {c:.4f} read {d:.4f}"
            )
        if spent - saved > SAVE_EVERY or spent >= seconds:
            saved = spent
            run.save(
                "unet",
                {
                    "unet": unet.state_dict(),
                    "head": head.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "spent": spent,
                    "scaling": scaling,
                },
            )
    return unet.eval()
