"""Everything that one step of training looks up: latents, pictures, audio and mouths of pairs."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from numpy.typing import NDArray

from export.demo.frames import load_speech
from export.demo.latents import latents_of
from export.demo.mouth import Mouth, opening
from export.demo.people import PEOPLE
from export.demo.run import CHANNELS_LAST, Run, autocast, read
from export.modules import AUDIO_TOKENS, positional_encoding

Rows = NDArray[np.int64]


class Pairs:
    """The training pairs of a run, in memory.

    Attributes:
        images: U8[N,256,256,3] BGR, the frames to learn.
        scaling: from the autoencoder's latents to the UNet's.
    """

    def __init__(self, run: Run, vae: AutoencoderTiny, scaling: float | None = None) -> None:
        latents = latents_of(run, vae)
        self.scaling: float = latents["scaling"] if scaling is None else scaling
        self.images = read(run.shards(), "want")
        self._latents = latents
        self._rows = read(run.shards(), "rows")
        self._speech = load_speech(run.folder / "speech", held_out=False)
        self._positions = positional_encoding(AUDIO_TOKENS, 384)
        self._zero = torch.zeros(1, dtype=torch.long)
        self._bf16 = run.bf16

    def __len__(self) -> int:
        return len(self._rows)

    def want(self, rows: Rows) -> torch.Tensor:
        """Latents F32[n,4,32,32] of the frames, scaled."""
        found: torch.Tensor = self._latents["want"][rows] * self.scaling
        return found

    def mouths(self, rows: Rows) -> torch.Tensor:
        """F32[n,6], the true mouths."""
        found = [self._speech[a].mouths[b] for a, b, *_ in self._rows[rows]]
        return torch.from_numpy(np.stack(found))

    def spoken(self, rows: Rows) -> torch.Tensor:
        """F32[n,7], the true mouths and how far each opens on its person's face, 0 to about 1."""
        gaps = [
            4 * opening(PEOPLE[who], Mouth.of(self._speech[a].mouths[b]))
            for a, b, who in self._rows[rows]
        ]
        return torch.cat([self.mouths(rows), torch.tensor(gaps, dtype=torch.float32)[:, None]], 1)

    def predict(self, unet: UNet2DConditionModel, rows: Rows) -> torch.Tensor:
        """What the UNet makes of masked frame, reference and audio: F32[n,4,32,32], scaled."""
        audio = np.stack([self._speech[a].audio[b] for a, b, *_ in self._rows[rows]])
        given = torch.cat([self._latents["half"][rows], self._latents["seen"][rows]], 1)
        with autocast(self._bf16):
            made: torch.Tensor = unet(
                (given * self.scaling).contiguous(memory_format=CHANNELS_LAST),
                self._zero,
                encoder_hidden_states=torch.from_numpy(audio.astype(np.float32)) + self._positions,
            ).sample
        return made.float()
