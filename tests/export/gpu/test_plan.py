"""``--plan``: what the docs print of a full-size checkpoint is what it says."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from rich.console import Console
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from export.build import rehearse
from export.gpu import plan as plan_module
from export.gpu.plan import plan, print_plan
from export.init import _UNET, _UNET_SIZES, _WHISPER, _vae
from export.model_config import MODELS
from orchestrator.errors import CheckpointError

DOCS = Path(__file__).parents[3] / "docs" / "tensorrt.md"


class FullSize:
    """A checkpoint of MuseTalk's own sizes whose weights are never in memory."""

    root = Path("checkpoints/musetalk")
    whisper, parsing = object(), None

    @classmethod
    def open(cls, root: Path) -> FullSize:
        return cls()

    def unet(self) -> UNet2DConditionModel:
        return UNet2DConditionModel.from_config({**_UNET, **_UNET_SIZES["full"]}).eval()

    def autoencoder(self, *, fast: bool = False) -> AutoencoderKL:
        assert not fast
        return _vae("full").eval()

    def whisper_encoder(self) -> WhisperEncoder:
        return WhisperEncoder(WhisperConfig(**_WHISPER)).eval()


def test_the_docs_print_the_plan_of_a_full_size_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "Checkpoint", FullSize)
    said = io.StringIO()
    with torch.device("meta"):
        planned = list(plan(FullSize.root, "full"))
    print_plan(planned, Console(file=said, highlight=False))
    _, _, section = DOCS.read_text().partition("## The plan of a full-size checkpoint\n\n```\n")
    printed, fence, _ = section.partition("```\n")
    assert fence and said.getvalue() == printed


class Attention(nn.Module):
    """In the place of Whisper: attention between its 3000 columns, and nothing else."""

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        columns = mel.mT[:, None]
        mixed = nn.functional.scaled_dot_product_attention(columns, columns, columns)
        return mixed.new_zeros((len(mel), 1500, 5, 384))


def test_attention_counts_on_a_cpu() -> None:
    gflop = rehearse(Attention(), MODELS["whisper_encoder"], FullSize.root)
    assert gflop == pytest.approx(2 * 2 * 3000 * 3000 * 80 / 1e9, abs=1e-3)


def test_a_network_that_does_not_run_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Labelled(FullSize):
        whisper = None

        def autoencoder(self, *, fast: bool = False) -> AutoencoderKL:
            return _vae("small").eval()

        def unet(self) -> UNet2DConditionModel:
            config = {**_UNET, **_UNET_SIZES["small"], "num_class_embeds": 3}
            return UNet2DConditionModel.from_config(config).eval()

    monkeypatch.setattr(plan_module, "Checkpoint", Labelled)
    with pytest.raises(CheckpointError, match="unet: the network of the config files does not run"):
        list(plan(FullSize.root, "full"))
