"""Checkpoints: both layouts, older names, other sizes; misfits are named by file and key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from export.attention_names import modern_vae_names, whisper_encoder_names
from export.bisenet import BiSeNet
from export.checkpoint import Checkpoint
from orchestrator.errors import CheckpointError

OLD_STYLES = {
    "query": {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"},
    "ldm": {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"},
}


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def test_official_layout_is_found(small_checkpoint: Path) -> None:
    parts = Checkpoint.open(small_checkpoint)
    assert parts.unet_config == small_checkpoint / "musetalkV15" / "musetalk.json"
    assert parts.whisper is not None and parts.taesd is not None and parts.parsing is None
    for network in (parts.unet(), parts.autoencoder(), parts.whisper_encoder()):
        assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
        assert not any(value.is_meta for value in network.state_dict().values())


def test_flat_layout_is_found(small_checkpoint: Path) -> None:
    for file in (small_checkpoint / "musetalkV15").iterdir():
        file.rename(small_checkpoint / file.name)
    (small_checkpoint / "musetalkV15").rmdir()
    assert Checkpoint.open(small_checkpoint).unet_weights == small_checkpoint / "unet.pth"


def test_golden_checkpoint_has_no_whisper(golden_checkpoint: Path) -> None:
    parts = Checkpoint.open(golden_checkpoint)
    assert parts.whisper is None
    with pytest.raises(CheckpointError, match="whisper/ is missing"):
        parts.whisper_encoder()


@pytest.mark.parametrize("style", sorted(OLD_STYLES))
@pytest.mark.parametrize("convolutions", [False, True])
def test_old_attention_names_give_the_same_vae(
    small_checkpoint: Path, style: str, convolutions: bool
) -> None:
    new = Checkpoint.open(small_checkpoint).autoencoder().state_dict()
    path = small_checkpoint / "sd-vae" / "diffusion_pytorch_model.safetensors"
    old: dict[str, torch.Tensor] = {}
    renamed = 0
    for key, value in load_file(path).items():
        for ours, theirs in OLD_STYLES[style].items():
            if f".attentions.0.{ours}." in key:
                key = key.replace(ours, theirs)
                renamed += 1
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None]
        old[key] = value
    assert renamed >= 16  # four projections with bias, in the encoder and the decoder
    path.unlink()
    torch.save(old, path.with_suffix(".bin"))
    again = Checkpoint.open(small_checkpoint).autoencoder().state_dict()
    assert all(torch.equal(again[key], value) for key, value in new.items())


def test_modern_names_stay() -> None:
    weights = {
        "encoder.mid_block.attentions.0.to_q.weight": torch.ones(2, 2),
        "encoder.mid_block.resnets.0.norm1.weight": torch.ones(2),
        "encoder.conv_in.weight": torch.ones(2, 2, 1, 1),
    }
    again = modern_vae_names(weights)
    assert {key: value.shape for key, value in again.items()} == {
        key: value.shape for key, value in weights.items()
    }


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder.", ""])
def test_whisper_prefixes(prefix: str) -> None:
    weights = {f"{prefix}conv1.weight": torch.ones(1), f"{prefix}layers.0.fc1.bias": torch.ones(1)}
    if prefix:
        weights[f"{prefix.replace('encoder', 'decoder')}conv1.weight"] = torch.ones(1)
    assert set(whisper_encoder_names(weights)) == {"conv1.weight", "layers.0.fc1.bias"}


def test_autoencoder_tiny_may_be_the_vae(small_checkpoint: Path) -> None:
    shutil.rmtree(small_checkpoint / "sd-vae")
    shutil.copytree(small_checkpoint / "taesd", small_checkpoint / "sd-vae")
    assert isinstance(Checkpoint.open(small_checkpoint).autoencoder(), AutoencoderTiny)


def test_vae_without_class_name_is_autoencoder_kl(small_checkpoint: Path) -> None:
    edit(small_checkpoint / "sd-vae" / "config.json", _class_name=None, scaling_factor=None)
    vae = Checkpoint.open(small_checkpoint).autoencoder()
    assert isinstance(vae, AutoencoderKL)
    assert vae.config["scaling_factor"] == 0.18215


def test_face_parsing_is_read_from_the_oldest_format(small_checkpoint: Path) -> None:
    network = BiSeNet()
    path = small_checkpoint / "face-parse-bisent" / "79999_iter.pth"
    path.parent.mkdir()
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    read = Checkpoint.open(small_checkpoint).face_parsing().state_dict()
    assert all(torch.equal(read[key], value) for key, value in network.state_dict().items())


def test_face_parsing_has_the_size_of_the_public_file() -> None:
    stored = sum(value.numel() for value in BiSeNet().state_dict().values())
    assert 13_200_000 < stored < 13_330_000  # 53,289,463 bytes of float32 and some names


def without_unet_config(root: Path) -> None:
    (root / "musetalkV15" / "musetalk.json").unlink()


def without_unet(root: Path) -> None:
    (root / "musetalkV15" / "unet.pth").unlink()


def without_vae(root: Path) -> None:
    shutil.rmtree(root / "sd-vae")


def without_vae_weights(root: Path) -> None:
    (root / "sd-vae" / "diffusion_pytorch_model.safetensors").unlink()


def with_text_for_config(root: Path) -> None:
    (root / "musetalkV15" / "musetalk.json").write_text("not json")


def with_list_for_config(root: Path) -> None:
    (root / "musetalkV15" / "musetalk.json").write_text("[]")


def with_unet_change(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "musetalkV15" / "unet.pth"
        weights = torch.load(path, weights_only=True)
        change(weights)
        torch.save(weights, path)

    return apply


def drop(weights: dict[str, torch.Tensor]) -> None:
    del weights["conv_in.bias"]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["stray.weight"] = torch.ones(1)


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["conv_in.bias"] = torch.ones(7)


def poison(weights: dict[str, torch.Tensor]) -> None:
    weights["conv_in.bias"][3] = float("nan")


def integers(weights: dict[str, torch.Tensor]) -> None:
    weights["conv_in.bias"] = weights["conv_in.bias"].long()


def config(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda root: edit(root / name, **changes)


UNET = "musetalkV15/musetalk.json"
MISFITS = {
    "no unet config": (without_unet_config, "musetalk.json is there"),
    "no unet": (without_unet, r"unet\.pth is missing"),
    "no vae": (without_vae, "sd-vae/ is missing"),
    "no vae weights": (without_vae_weights, "sd-vae: none of"),
    "config is text": (with_text_for_config, r"musetalk\.json: not a readable JSON"),
    "config is a list": (with_list_for_config, r"musetalk\.json: expected an object"),
    "key missing": (with_unet_change(drop), r"unet\.pth: conv_in\.bias is missing"),
    "key too many": (with_unet_change(add), r"unet\.pth: stray\.weight has no place"),
    "wrong shape": (with_unet_change(reshape), r"conv_in\.bias is \[7\], the config wants \[32\]"),
    "not finite": (with_unet_change(poison), r"conv_in\.bias holds values that are not finite"),
    "integers": (with_unet_change(integers), r"conv_in\.bias is of type torch\.int64"),
    "input channels": (config(UNET, in_channels=4), r"in_channels is 4, MuseTalk has 8"),
    "no width": (config(UNET, cross_attention_dim=None), "cross_attention_dim is missing"),
    "other width": (config(UNET, cross_attention_dim=768), "cross_attention_dim is 768"),
    "other channels": (config(UNET, block_out_channels=[64, 64, 64]), r"unet\.pth: conv_in"),
    "nonsense channels": (config(UNET, block_out_channels="many"), "describes no network"),
    "unknown block": (config(UNET, down_block_types=["X"] * 3), "describes no network"),
    "vae class": (config("sd-vae/config.json", _class_name="VQModel"), "_class_name is VQModel"),
    "vae latents": (config("sd-vae/config.json", latent_channels=16), "latent_channels is 16"),
    "taesd class": (config("taesd/config.json", _class_name="AutoencoderKL"), "_class_name"),
    "whisper size": (config("whisper/config.json", d_model=512), "d_model is 512"),
    "whisper layers": (config("whisper/config.json", encoder_layers=6), "encoder_layers is 6"),
    "whisper heads": (config("whisper/config.json", encoder_attention_heads="six"), "no network"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_are_refused_by_name(small_checkpoint: Path, case: str) -> None:
    damage, message = MISFITS[case]
    damage(small_checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        parts = Checkpoint.open(small_checkpoint)
        parts.unet()
        parts.autoencoder()
        parts.autoencoder(fast=True)
        parts.whisper_encoder()
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        Checkpoint.open(tmp_path / "nowhere")


def test_fast_decoder_needs_its_folder(golden_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="taesd/ is missing"):
        Checkpoint.open(golden_checkpoint).autoencoder(fast=True)


def test_first_weight_file_found_wins(small_checkpoint: Path) -> None:
    path = small_checkpoint / "sd-vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({key: value * 0 for key, value in weights.items()}, path)
    torch.save(weights, path.with_suffix(".bin"))
    vae = Checkpoint.open(small_checkpoint).autoencoder()
    assert not any(value.any() for value in vae.state_dict().values())


@pytest.mark.parametrize("name", ["vae-ft-mse.bin", "model.fp16.safetensors", "weights.pth"])
def test_a_weight_file_of_another_name(small_checkpoint: Path, name: str) -> None:
    usual = small_checkpoint / "sd-vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(usual)
    usual.unlink()
    path = usual.with_name(name)
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    checkpoint = Checkpoint.open(small_checkpoint)
    assert checkpoint.autoencoder().state_dict().keys() == weights.keys()
    assert path in checkpoint.sources(fast=False)
    torch.save(weights, usual.with_name("z.bin"))
    with pytest.raises(CheckpointError, match=f"which of {name}, z.bin has the weights"):
        checkpoint.autoencoder()
