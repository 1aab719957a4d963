"""Randomly initialised checkpoints: the same layout, the same weights for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from export.checkpoint import Checkpoint
from export.init import _UNET, _UNET_SIZES, init
from export.manifest import sha256
from orchestrator.errors import CheckpointError


def test_seed_decides_the_weights(small_checkpoint: Path, tmp_path: Path) -> None:
    init(tmp_path / "same", "small", seed=7)
    init(tmp_path / "other", "small", seed=8)
    file = "sd-vae/diffusion_pytorch_model.safetensors"
    assert sha256(tmp_path / "same" / file) == sha256(small_checkpoint / file)
    assert sha256(tmp_path / "other" / file) != sha256(small_checkpoint / file)


def test_every_part_is_there(small_checkpoint: Path) -> None:
    parts = Checkpoint.open(small_checkpoint)
    files = parts.sources(fast=True)
    assert all(path.is_file() for path in files) and len(files) == 8
    assert all(path.stat().st_mode & 0o040 for path in files)  # readable by a server's user


def test_full_size_is_that_of_musetalk() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config({**_UNET, **_UNET_SIZES["full"]})
    assert sum(value.numel() for value in unet.parameters()) == 849_947_844


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        init(tmp_path, "small")
    assert not list(tmp_path.iterdir())
