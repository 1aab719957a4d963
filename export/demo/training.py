"""Training in pieces that survive interruption: autoencoder, UNet, then the decoder again."""

from __future__ import annotations

from pathlib import Path

import torch

from export.demo.networks import carry_over, new_unet, new_vae, save_checkpoint
from export.demo.run import Log, Progress, Run
from export.demo.start import Start
from export.demo.train_unet import train_unet
from export.demo.train_vae import polish, train_vae

VAE_SHARE, POLISH_SHARE = 0.14, 0.12  # of the time
POLISH_SHARE_FROM_START = 0.2
DECODER_SHARE_FROM_START = 0.2
"""Of a checkpoint whose decoder has other layers; none of one whose decoder fits."""


def train(
    folder: Path,
    hours: float,
    clips: int,
    frames: int,
    bf16: bool,
    log: Log,
    progress: Progress,
    start_from: Path | None = None,
    seed: int = 0,
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
        start_from: a checkpoint whose UNet and decoder are trained on; the run remembers it.
        seed: of the data.
    """
    run = Run(folder, log, bf16, progress)
    start = Start.in_run(run, start_from)
    run.prepare(clips, frames, seed)
    seconds = hours * 3600
    if start is None:
        vae = train_vae(run, seconds * VAE_SHARE)
        share = POLISH_SHARE
        unet = train_unet(run, vae, seconds * (1 - VAE_SHARE - share))
    else:
        untrained = carry_over(new_vae(), start.vae)
        decoder = DECODER_SHARE_FROM_START if untrained else 0.0
        vae = train_vae(run, seconds * decoder, start=start)
        share = POLISH_SHARE_FROM_START
        unet = train_unet(run, vae, seconds * (1 - decoder - share), start=start)
    polish(run, vae, unet, seconds * share, start=start)
    write_checkpoint(folder, folder / "checkpoint")


def write_checkpoint(folder: Path, target: Path) -> None:
    """The networks as they are in the run's folder, in MuseTalk's layout.

    Raises:
        FileNotFoundError: the UNet's training has not saved anything yet.
    """
    vae, unet = new_vae(), new_unet()
    states = [folder / f"{name}.pt" for name in ("polish", "vae", "start")]
    of_vae = next((path for path in states if path.is_file()), states[1])
    vae.load_state_dict(torch.load(of_vae, weights_only=True)["vae"])
    state = torch.load(folder / "unet.pt", weights_only=True)
    unet.load_state_dict(state["unet"])
    save_checkpoint(target, unet, vae, state["scaling"])
