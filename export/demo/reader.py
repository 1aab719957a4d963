"""A small network that reads the mouth off latents: what the UNet's lips are told by.

A loss on latents or pixels is mostly skin. Of lips that come half a frame late or stay timid it
notices little; the reader, trained on true latents and then frozen, notices nothing else.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from export.demo.pairs import Pairs
from export.demo.run import Run

STEPS, _BATCH = 800, 64


class Reader(nn.Module):
    """Scaled latents F32[n,4,32,32] to F32[n,7]: the mouth's parameters and its opening."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 6, 128),
            nn.SiLU(),
            nn.Linear(128, 7),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Of the lower half's middle, all that the lips reach."""
        found: torch.Tensor = self.layers(latents[:, :, 16:, 4:28])
        return found


def train_reader(run: Run, pairs: Pairs) -> Reader:
    """A reader that knows the true latents of the pairs, frozen; half a minute."""
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    reader = Reader()
    optimiser = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
        k = rng.integers(0, len(pairs), _BATCH)
        latents = pairs.want(k)
        # The UNet's latents are not as clean as the encoder's.
        latents = latents + torch.randn_like(latents) * 0.2 * torch.rand(_BATCH, 1, 1, 1)
        loss = (reader(latents) - pairs.spoken(k)).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    run.log(f"reader: L1 {np.mean(losses[-100:]):.4f}")
    return reader.requires_grad_(False).eval()
