"""Training in pieces that survive interruption: the autoencoder, the UNet, the decoder again.

MuseTalk's recipe: the UNet gets the latents of the frame with its lower half black and those of
a reference frame of the same person, and the audio of the frame; it predicts the frame's latents
in one pass at timestep 0. The loss is L1 in latents, heavier around the mouth, later with L1 on
the decoded pixels of the mouth, and an auxiliary head that must name the mouth's parameters from
the middle of the UNet, which is dropped afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

from export.demo.frames import SHARD, Speech, load_speech, make_shard, make_speech
from export.demo.networks import new_unet, new_vae, save_checkpoint
from export.modules import AUDIO_TOKENS, positional_encoding

SAVE_EVERY = 120.0  # seconds
VAE_SHARE, POLISH_SHARE = 0.2, 0.12  # of the time
Log = Callable[[str], None]
_LAST = torch.channels_last


def autocast(enabled: bool) -> torch.autocast:
    """bfloat16 arithmetic on the CPU, or none."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def pixels(crops: np.ndarray) -> torch.Tensor:
    """U8[n,h,w,3] BGR to float [n,3,h,w] RGB of -1 to 1, channels last."""
    tensor = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=_LAST)


def masked(images: torch.Tensor) -> torch.Tensor:
    """The images with their lower half black, as MuseTalk masks them."""
    result = images.clone()
    result[:, :, 128:] = -1
    return result


class Run:
    """A training folder: its data, its state files, its curves."""

    def __init__(self, folder: Path, log: Log, bf16: bool) -> None:
        self.folder, self.log, self.bf16 = folder, log, bf16
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace a state file at once, never half of it."""
        part = self.folder / f"{name}.part"
        torch.save(state, part)
        part.rename(self.folder / f"{name}.pt")

    def load(self, name: str) -> dict[str, Any] | None:
        """A state file, or None."""
        path = self.folder / f"{name}.pt"
        return torch.load(path, weights_only=True) if path.is_file() else None

    def note(self, **values: float | str) -> None:
        """One line of the curves, in curves.jsonl."""
        with (self.folder / "curves.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def shards(self) -> list[Path]:
        """The shards of frames that are complete."""
        return sorted((self.folder / "frames").glob("[0-9]*[0-9].npz"))

    def prepare(self, clips: int, frames: int) -> None:
        """Make what is missing of speech and frames."""
        speech = self.folder / "speech"
        if not (speech / "complete").is_file():
            self.log(f"speech: {clips} clips")
            make_speech(speech, clips)
        (self.folder / "frames").mkdir(exist_ok=True)
        known: list[Speech] | None = None
        for i in range(-(-frames // SHARD)):
            target = self.folder / "frames" / f"{i:05d}.npz"
            if not target.is_file():
                known = known or load_speech(speech, held_out=False)
                make_shard(target, known, i)
                self.log(f"frames: {(i + 1) * SHARD}")


def _clock() -> float:
    """Seconds of both cores at work: what others take of the machine does not count."""
    return time.process_time() / torch.get_num_threads()


def _read(shards: list[Path], key: str) -> np.ndarray:
    return np.concatenate([np.load(path)[key] for path in shards])


def _gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _rate(peak: float, step: int, spent: float) -> float:
    """Learning rate: a short warm-up, then down to 2 % as the budget is spent (0 to 1)."""
    left: float = max(0.0, 1 - spent)
    return peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * float(left**0.8))


def train_vae(run: Run, seconds: float, batch: int = 12) -> AutoencoderTiny:
    """The autoencoder: patches of 128 pixels, L1, edges, and noise on its latents.

    Args:
        run: where data and state are.
        seconds: of training in all, earlier pieces included.
        batch: patches a step.

    Returns:
        The network in evaluation mode.
    """
    torch.manual_seed(0)
    vae = new_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=0.0, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    state = run.load("vae")
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    images = _read(run.shards(), "want") if spent < seconds else np.empty(0)
    rng = np.random.default_rng(step)
    saved, losses = spent, []
    while spent < seconds:
        began = _clock()
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
            group["lr"] = _rate(2e-3, step, spent / seconds)
        with autocast(run.bf16):
            latents = vae.encode(real).latents.float()
            noise = torch.randn_like(latents) * 0.04 * torch.rand(batch, 1, 1, 1)
            drawn = vae.decode(latents + noise).sample.float()
        edges = sum(
            (a - b).abs().mean() for a, b in zip(_gradients(drawn), _gradients(real), strict=True)
        )
        loss = (drawn - real).abs().mean() + edges + 2 * (drawn - real).square().mean()
        loss = loss + 0.002 * (latents.square().mean() - 1).relu()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        losses.append((drawn - real).detach().abs().mean().item())
        step += 1
        spent += _clock() - began
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


@torch.no_grad()
def encode(vae: AutoencoderTiny, images: np.ndarray, mask: bool, bf16: bool) -> torch.Tensor:
    """Latents F32[n,4,32,32] of U8 crops, without scaling."""
    out = []
    for i in range(0, len(images), 16):
        batch = pixels(images[i : i + 16])
        with autocast(bf16):
            out.append(vae.encode(masked(batch) if mask else batch).latents.float())
    return torch.cat(out)


def _latents(run: Run, vae: AutoencoderTiny) -> dict[str, Any]:
    """Latents of all shards, kept on disk; made again when the frames or the VAE are others."""
    shards = run.shards()
    known = run.load("latents")
    if known is not None and known["shards"] == len(shards):
        return known
    run.log(f"latents of {len(shards) * SHARD} pairs")
    kinds: dict[str, list[torch.Tensor]] = {"want": [], "seen": [], "half": []}
    for path in shards:
        with np.load(path) as data:
            want, seen = data["want"], data["seen"]
        kinds["want"].append(encode(vae, want, False, run.bf16))
        kinds["seen"].append(encode(vae, seen, False, run.bf16))
        kinds["half"].append(encode(vae, want, True, run.bf16))
    made: dict[str, Any] = {key: torch.cat(value) for key, value in kinds.items()}
    made["scaling"] = 1 / float(made["want"].std())
    made["shards"] = len(shards)
    run.save("latents", made)
    return made


def train_unet(
    run: Run, vae: AutoencoderTiny, seconds: float, batch: int = 12
) -> UNet2DConditionModel:
    """The UNet; saves the checkpoint's state every two minutes.

    Args:
        run: where data and state are.
        vae: frozen.
        seconds: of training in all; pixels count from 35 % on.
        batch: frames a step.
    """
    torch.manual_seed(1)
    unet = new_unet()
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
    latents = _latents(run, vae)
    scaling = latents["scaling"]
    rows, images = _read(run.shards(), "rows"), _read(run.shards(), "want")
    speech = load_speech(run.folder / "speech", held_out=False)
    positions = positional_encoding(AUDIO_TOKENS, 384)
    weight = torch.full((1, 1, 32, 32), 0.3)
    weight[:, :, 16:] = 1.0
    weight[:, :, 19:30, 9:23] = 4.0
    weight /= weight.mean()
    focus = torch.ones(1, 1, 128, 128)
    focus[:, :, 24:104, 16:112] = 3.0
    zero = torch.zeros(1, dtype=torch.long)
    vae.requires_grad_(False)
    rng = np.random.default_rng(step)
    saved = spent
    sums: list[tuple[float, float, float]] = []
    unet.train()
    while spent < seconds:
        began = _clock()
        k = rng.integers(0, len(rows), batch)
        audio = np.stack([speech[rows[i, 0]].audio[rows[i, 1]] for i in k]).astype(np.float32)
        truth = torch.from_numpy(np.stack([speech[rows[i, 0]].mouths[rows[i, 1]] for i in k]))
        want = latents["want"][k] * scaling
        given = torch.cat([latents["half"][k], latents["seen"][k]], 1) * scaling
        for group in optimiser.param_groups:
            group["lr"] = _rate(1.2e-3, step, spent / seconds)
        with autocast(run.bf16):
            made = unet(
                given.contiguous(memory_format=_LAST),
                zero,
                encoder_hidden_states=torch.from_numpy(audio) + positions,
            ).sample
        made = made.float()
        in_latents = ((made - want).abs() * weight).mean()
        named = (head(middle["x"].float().mean((2, 3))) - truth).abs().mean()
        loss = in_latents + 2 * named
        in_pixels = torch.zeros(())
        if spent > 0.35 * seconds:
            real = pixels(images[k, 128:256, 64:192])
            with autocast(run.bf16):
                part = (made[:, :, 16:32, 8:24] / scaling).contiguous(memory_format=_LAST)
                drawn = vae.decode(part).sample.float()
            in_pixels = ((drawn - real).abs() * focus).mean()
            loss = loss + 4 * in_pixels
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        spent += _clock() - began
        sums.append((in_latents.item(), named.item(), in_pixels.item()))
        if step % 100 == 0:
            a, b, c = np.mean(sums[-100:], 0)
            run.note(phase="unet", step=step, spent=spent, latent=a, mouth=b, pixel=c)
            run.log(f"unet {step}: {spent:.0f} s, latent {a:.4f} mouth {b:.4f} pixel {c:.4f}")
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


def polish(
    run: Run, vae: AutoencoderTiny, unet: UNet2DConditionModel, seconds: float, batch: int = 12
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
    latents = _latents(run, vae)
    scaling = latents["scaling"]
    rows, images = _read(run.shards(), "rows"), _read(run.shards(), "want")
    speech = load_speech(run.folder / "speech", held_out=False)
    positions = positional_encoding(AUDIO_TOKENS, 384)
    zero = torch.zeros(1, dtype=torch.long)
    rng = np.random.default_rng([2, step])
    saved, losses = spent, []
    while spent < seconds:
        began = _clock()
        k = rng.integers(0, len(rows), batch)
        with torch.no_grad(), autocast(run.bf16):
            audio = np.stack([speech[rows[i, 0]].audio[rows[i, 1]] for i in k])
            given = torch.cat([latents["half"][k], latents["seen"][k]], 1) * scaling
            made = unet(
                given.contiguous(memory_format=_LAST),
                zero,
                encoder_hidden_states=torch.from_numpy(audio.astype(np.float32)) + positions,
            ).sample
        pictures, patches = [], []
        for n, i in enumerate(k):
            y, x = int(rng.integers(12, 17)), int(rng.integers(0, 17))
            pictures.append(images[i, y * 8 : y * 8 + 128, x * 8 : x * 8 + 128])
            patches.append(made[n, :, y : y + 16, x : x + 16].float() / scaling)
        for group in optimiser.param_groups:
            group["lr"] = _rate(8e-4, step, spent / seconds)
        real = pixels(np.stack(pictures))
        with autocast(run.bf16):
            drawn = vae.decode(torch.stack(patches).contiguous(memory_format=_LAST)).sample.float()
        edges = sum(
            (a - b).abs().mean() for a, b in zip(_gradients(drawn), _gradients(real), strict=True)
        )
        # Colour first: the mean over 8 pixels must be right, whatever the detail.
        colour = nn.functional.avg_pool2d(drawn - real, 8).abs().mean()
        loss = (drawn - real).abs().mean() + edges + 2 * colour
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append((drawn - real).detach().abs().mean().item())
        step += 1
        spent += _clock() - began
        if step % 100 == 0:
            run.note(phase="polish", step=step, spent=spent, l1=float(np.mean(losses[-100:])))
            run.log(f"polish {step}: {spent:.0f} s, L1 {np.mean(losses[-100:]):.4f}")
        if spent - saved > SAVE_EVERY or spent >= seconds:
            saved = spent
            state = {"vae": vae.state_dict(), "optimiser": optimiser.state_dict()}
            run.save("polish", {**state, "step": step, "spent": spent})


def train(
    folder: Path, hours: float, clips: int, frames: int, bf16: bool, log: Log = print
) -> None:
    """Everything, from where it was cut off: data, autoencoder, UNet, decoder, checkpoint.

    Args:
        folder: of the run; the checkpoint is written to its ``checkpoint/``.
        hours: of training in all, a fifth of them the autoencoder's, counted in the time that the
            threads really ran. Data come on top.
        clips: of speech.
        frames: drawn pairs.
        bf16: bfloat16 arithmetic.
        log: gets one line at a time.
    """
    run = Run(folder, log, bf16)
    run.prepare(clips, frames)
    vae = train_vae(run, hours * 3600 * VAE_SHARE)
    unet = train_unet(run, vae, hours * 3600 * (1 - VAE_SHARE - POLISH_SHARE))
    polish(run, vae, unet, hours * 3600 * POLISH_SHARE)
    write_checkpoint(folder, folder / "checkpoint")


def write_checkpoint(folder: Path, target: Path) -> None:
    """The networks as they are in the run's folder, in MuseTalk's layout.

    Raises:
        FileNotFoundError: the UNet's training has not saved anything yet.
    """
    vae, unet = new_vae(), new_unet()
    polished = folder / "polish.pt"
    of_vae = polished if polished.is_file() else folder / "vae.pt"
    vae.load_state_dict(torch.load(of_vae, weights_only=True)["vae"])
    state = torch.load(folder / "unet.pt", weights_only=True)
    unet.load_state_dict(state["unet"])
    save_checkpoint(target, unet, vae, state["scaling"])
