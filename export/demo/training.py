"""Training in pieces that survive interruption: autoencoder, UNet, then the decoder again."""

from __future__ import annotations

from pathlib import Path

import torch

from export.demo.networks import new_unet, new_vae, save_checkpoint
from export.demo.run import Log, Progress, Run
from export.demo.train_unet import train_unet
from export.demo.train_vae import polish, train_vae

VAE_SHARE, POLISH_SHARE = 0.14, 0.12  # of the time


def train(
    folder: Path,
    hours: float,
    clips: int,
    frames: int,
    bf16: bool,
    log: Log,
    progress: Progress,
) -> None:
    """Everything, from where it was cut off: data, autoencoder, UNet, decoder, checkpoint.

    Args:
        folder: of the run; the checkpoint is written to its ``checkpoint/``.
        hours: of training in all, a seventh of them the autoencoder's, counted in the time that the
            threads really ran. Data come on top.
        clips: of speech.
        frames: drawn pairs.
        bf16: bfloat16 arithmetic.
        log: gets one line at a time.
        progress: told how far each phase is.
    """
    run = Run(folder, log, bf16, progress)
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
