"""A checkpoint that is trained on: kept in the run's folder, so that later pieces find it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny

from export.checkpoint import Checkpoint
from export.demo.networks import UNET, VAE
from export.demo.run import Run
from orchestrator.errors import CheckpointError

Weights = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """The weights that a run began with.

    Attributes:
        vae: of the autoencoder; its encoder stays as it is, since the UNet knows its latents.
        unet: trained on latents times `scaling`.
        scaling: stays as it is for the same reason.
    """

    vae: Weights
    unet: Weights
    scaling: float

    @staticmethod
    def of(checkpoint: Path) -> Start:
        """Read a checkpoint.

        Raises:
            CheckpointError: it is none, or not of the demo's sizes.
        """
        found = Checkpoint.open(checkpoint)
        unet, vae = found.unet(), found.autoencoder()
        fits = isinstance(vae, AutoencoderTiny) and all(
            list(network.config[key]) == config[key]
            for network, config, key in (
                (unet, UNET, "block_out_channels"),
                (vae, VAE, "encoder_block_out_channels"),
                (vae, VAE, "num_encoder_blocks"),
                (vae, VAE, "decoder_block_out_channels"),
            )
        )
        if not fits:
            raise CheckpointError(
                f"{checkpoint} has networks of other sizes than the demo's.",
                remedy="--start-from export/demo/checkpoint",
            )
        scaling = float(vae.config["scaling_factor"])
        return Start(vae.float().state_dict(), unet.float().state_dict(), scaling)

    @staticmethod
    def in_run(run: Run, checkpoint: Path | None = None) -> Start | None:
        """What the run began with; `checkpoint` counts for a run that has not begun."""
        known = run.load("start")
        if known is not None:
            return Start(**known)
        if checkpoint is None:
            return None
        if (run.folder / "vae.pt").is_file():
            raise CheckpointError(
                f"{run.folder} holds a run that began without a checkpoint.",
                remedy="leave --start-from out, or name another --workdir",
            )
        start = Start.of(checkpoint)
        run.save("start", asdict(start))
        return start
