"""The losses of a training run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_PANELS = {
    "vae": ("autoencoder: L1 of pixels", ("l1",)),
    "unet": (
        "UNet: latents, mouth parameters, pixels of the mouth, reader",
        ("latent", "mouth", "pixel", "read"),
    ),
    "polish": ("decoder on the UNet's latents: L1 of pixels", ("l1",)),
}


def draw(source: Path, target: Path) -> None:
    """Write a PNG with a panel for each phase.

    Args:
        source: ``curves.jsonl`` of a training folder.
        target: the picture.
    """
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(15, 4), constrained_layout=True)
    for axis, (phase, (title, names)) in zip(axes, _PANELS.items(), strict=True):
        mine = [line for line in lines if line["phase"] == phase]
        for name in names:
            points = [(line["step"], line[name]) for line in mine if line.get(name, 0) > 0]
            axis.plot([x for x, _ in points], [y for _, y in points], label=name)
        axis.set(title=title, xlabel="steps", yscale="log")
        if mine:
            axis.legend()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=90)
    plt.close(figure)
