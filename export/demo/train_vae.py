"""The autoencoder: trained on true crops, and at the end its decoder on what the UNet makes."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

from export.demo.networks import carry_over, new_vae
from export.demo.pairs import Pairs
from export.demo.run import (
    CHANNELS_LAST,
    SAVE_EVERY,
    Run,
    autocast,
    clock,
    gradients,
    pixels,
    rate,
    read,
)
from export.demo.start import Start


def train_vae(
    run: Run, seconds: float, batch: int = 12, start: Start | None = None
) -> AutoencoderTiny:
    """The autoencoder: patches of 128 pixels, L1, edges, and noise on its latents.

    Args:
        run: where data and state are.
        seconds: of training in all, earlier pieces included.
        batch: patches a step.
        start: the checkpoint that is trained on; its encoder stays, and so do the latents.

    Returns:
        The network in evaluation mode.
    """
    torch.manual_seed(0)
    vae = new_vae()
    if start is not None:
        carry_over(vae, start.vae)
        vae.encoder.requires_grad_(False)
    learning = [weight for weight in vae.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learning, 2e-3, weight_decay=0.0, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    state = run.load("vae")
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    images = read(run.shards(), "want") if spent < seconds else np.empty(0)
    rng = np.random.default_rng(step)
    saved, losses = spent, []
    while spent < seconds:
        began = clock()
        patches = []
        for k in rng.integers(0, len(images), batch):
            low = rng.random() < 0.6  # the mouth is what matters most
            y = int(rng.integers(100, 129)) if low else int(rng.integers(0, 129))
            x = int(rng.integers(40, 89)) if low else int(rng.integers(0, 129))
            patches.append(images[k, y : y + 128, x : x + 128])
        real = pixels(np.stack(patches))
        if rng.random() < 0.5:
            real[: batch // 3, :, : int(rng.integers(20, 120))] = -1  # the half mask's edge
        for group in optimiser.param_groups:
            group["lr"] = rate(2e-3, step, spent / seconds)
        with autocast(run.bf16):
            latents = vae.encode(real).latents.float()
            noise = torch.randn_like(latents) * 0.04 * torch.rand(batch, 1, 1, 1)
            drawn = vae.decode(latents + noise).sample.float()
        edges = sum(
            (a - b).abs().mean() for a, b in zip(gradients(drawn), gradients(real), strict=True)
        )
        loss = (drawn - real).abs().mean() + edges + 2 * (drawn - real).square().mean()
        loss = loss + 0.002 * (latents.square().mean() - 1).relu()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        losses.append((drawn - real).detach().abs().mean().item())
        step += 1
        spent += clock() - began
        run.progress("vae", spent / seconds)
        if step % 100 == 0:
            run.note(phase="vae", step=step, spent=spent, l1=float(np.mean(losses[-100:])))
            run.log(f"vae {step}: {spent:.0f} s, L1 {np.mean(losses[-100:]):.4f}")
        if spent - saved > SAVE_EVERY or spent >= seconds:
            saved = spent
            run.save(
                "vae",
                {
                    "vae": vae.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "spent": spent,
                },
            )
    return vae.eval()


def polish(
    run: Run,
    vae: AutoencoderTiny,
    unet: UNet2DConditionModel,
    seconds: float,
    batch: int = 12,
    start: Start | None = None,
) -> None:
    """Fit the decoder to what the UNet gives it, on the whole lower half of the face.

    The encoder stays as it is, and so do the latents. What is learnt here are the colours and the
    skin along the mask's border, which the mouth's loss leaves to chance.

    Args:
        run: where data and state are.
        vae: its decoder is trained.
        unet: frozen.
        seconds: of training in all.
        batch: patches a step.
        start: the checkpoint that is trained on, if any.
    """
    torch.manual_seed(2)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    optimiser = torch.optim.AdamW(vae.decoder.parameters(), 8e-4, weight_decay=0.0)
    step, spent = 0, 0.0
    state = run.load("polish")
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    if spent >= seconds:
        return
    pairs = Pairs(run, vae, None if start is None else start.scaling)
    rng = np.random.default_rng([2, step])
    border = torch.ones(1, 1, 20, 32)  # of the means over 8 pixels, from row 96 on
    border[:, :, 3:10] = 3.0  # cheeks: there the composite goes from portrait to generated
    saved, losses = spent, []
    while spent < seconds:
        began = clock()
        k = rng.integers(0, len(pairs), batch)
        with torch.no_grad():
            made = pairs.predict(unet, k) / pairs.scaling
        pictures, patches, weights = [], [], []
        for n, i in enumerate(k):
            y, x = int(rng.integers(12, 17)), int(rng.integers(0, 17))
            pictures.append(pairs.images[i, y * 8 : y * 8 + 128, x * 8 : x * 8 + 128])
            patches.append(made[n, :, y : y + 16, x : x + 16])
            weights.append(border[0, :, y - 12 : y + 4, x : x + 16])
        for group in optimiser.param_groups:
            group["lr"] = rate(8e-4, step, spent / seconds)
        real = pixels(np.stack(pictures))
        with autocast(run.bf16):
            drawn = vae.decode(
                torch.stack(patches).contiguous(memory_format=CHANNELS_LAST)
            ).sample.float()
        edges = sum(
            (a - b).abs().mean() for a, b in zip(gradients(drawn), gradients(real), strict=True)
        )
        # Colour first: the mean over 8 pixels must be right, whatever the detail.
        means = nn.functional.avg_pool2d(drawn - real, 8).abs()
        colour = (means * torch.stack(weights)).mean()
        loss = (drawn - real).abs().mean() + edges + 2 * colour
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append((drawn - real).detach().abs().mean().item())
        step += 1
        spent += clock() - began
        run.progress("polish", spent / seconds)
        if step % 100 == 0:
            run.note(phase="polish", step=step, spent=spent, l1=float(np.mean(losses[-100:])))
            run.log(f"polish {step}: {spent:.0f} s, L1 {np.mean(losses[-100:]):.4f}")
        if spent - saved > SAVE_EVERY or spent >= seconds:
            saved = spent
            state = {"vae": vae.state_dict(), "optimiser": optimiser.state_dict()}
            run.save("polish", {**state, "step": step, "spent": spent})
