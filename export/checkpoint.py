"""A checkpoint in MuseTalk's file layout: find its parts, build its networks, refuse misfits.

The layout is that of MuseTalk's ``models/`` folder (design.md section 4); sizes are read from
the config files beside the weights, never assumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.utils.logging import set_verbosity_error
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from export.attention_names import Weights, modern_vae_names, whisper_encoder_names
from export.bisenet import BiSeNet
from export.weight_files import read_weights
from orchestrator.errors import CheckpointError

Vae: TypeAlias = AutoencoderKL | AutoencoderTiny
Network = TypeVar("Network", bound=nn.Module)

# What the tensors between the models fix, whatever the size of the networks (design.md
# section 3). `in_channels`: masked latents and reference latents, one after the other.
_UNET_FACTS = {"in_channels": 8, "out_channels": 4, "cross_attention_dim": 384}
_WHISPER_FACTS = {
    "d_model": 384,
    "encoder_layers": 4,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
_VAE_FACTS = {"latent_channels": 4}

_VAE_CLASSES: dict[str, type[Any]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
}
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pth")
_WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file", remedy="see the checkpoint layout") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected an object of settings")
    return config


def _check(config: dict[str, Any], facts: dict[str, int], path: Path) -> None:
    for key, wanted in facts.items():
        if config.get(key, wanted) != wanted:
            raise CheckpointError(f"{path}: {key} is {config[key]}, MuseTalk has {wanted}")


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.glob("*") if path.suffix in _WEIGHT_ENDINGS)
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise CheckpointError(f"{folder}: which of {names} has the weights?", remedy="keep one")
    if not others:
        raise CheckpointError(f"{folder}: none of {', '.join(_WEIGHT_NAMES)} is there")
    return others[0]


def _construct(build: Callable[[], Network], config: Path) -> Network:
    """Build a network without memory for its weights, which come from the file."""
    # A config of an older version holds settings that today's classes report as unknown.
    set_verbosity_error()
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{config}: describes no network: {reason}") from error


def _fit(network: Network, weights: Weights, path: Path) -> Network:
    """Put the weights of a file into a network, as float32, exactly or not at all."""
    expected = network.state_dict()
    for key in expected:
        if key not in weights:
            raise CheckpointError(f"{path}: {key} is missing")
        if weights[key].is_floating_point() != expected[key].is_floating_point():
            raise CheckpointError(f"{path}: {key} is of type {weights[key].dtype}")
        if weights[key].shape != expected[key].shape:
            raise CheckpointError(
                f"{path}: {key} is {list(weights[key].shape)}, the config wants "
                f"{list(expected[key].shape)}"
            )
        if not bool(torch.isfinite(weights[key]).all()):
            raise CheckpointError(f"{path}: {key} holds values that are not finite")
    for key in weights:
        if key not in expected:
            raise CheckpointError(f"{path}: {key} has no place in the network of the config")
    floats = {
        key: value.float() if value.is_floating_point() else value for key, value in weights.items()
    }
    network.load_state_dict(floats, strict=True, assign=True)
    return network.requires_grad_(False).eval()


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint; each method reads one network, float32, in eval mode.

    Attributes:
        root: the folder that was opened.
        unet_config: ``musetalk.json``.
        unet_weights: ``unet.pth`` or its safetensors form.
        vae: folder of the VAE.
        whisper: folder of Whisper, None when the checkpoint has none.
        taesd: folder of the small autoencoder for the ``fast`` decoder, or None.
        parsing: weight file of the face parsing network, or None.
    """

    root: Path
    unet_config: Path
    unet_weights: Path
    vae: Path
    whisper: Path | None
    taesd: Path | None
    parsing: Path | None

    @staticmethod
    def open(root: Path) -> Checkpoint:
        """Find the parts of a checkpoint, in the official or the flat layout.

        Raises:
            CheckpointError: the folder, the UNet or the VAE is not there.
        """
        if not root.is_dir():
            raise CheckpointError(
                f"{root}: no such folder", remedy="musetalk export fetch, or export init"
            )
        for folder in (root / "musetalkV15", root):
            if (folder / "musetalk.json").is_file():
                break
        else:
            raise CheckpointError(
                f"{root}: neither musetalkV15/musetalk.json nor musetalk.json is there",
                remedy="name the folder that holds them",
            )
        weights = [folder / f"unet.{end}" for end in ("pth", "safetensors", "bin")]
        unet = next((path for path in weights if path.is_file()), None)
        if unet is None:
            raise CheckpointError(f"{folder}: unet.pth is missing")
        if not (root / "sd-vae").is_dir():
            raise CheckpointError(f"{root}: sd-vae/ is missing")

        def optional(path: Path) -> Path | None:
            return path if path.exists() else None

        return Checkpoint(
            root=root,
            unet_config=folder / "musetalk.json",
            unet_weights=unet,
            vae=root / "sd-vae",
            whisper=optional(root / "whisper"),
            taesd=optional(root / "taesd"),
            parsing=optional(root / "face-parse-bisent" / "79999_iter.pth"),
        )

    def unet(self) -> UNet2DConditionModel:
        """The UNet.

        Raises:
            CheckpointError: file and key that do not fit the config.
        """
        config = _read_config(self.unet_config)
        for key in _UNET_FACTS:
            if key not in config:  # diffusers' defaults are those of Stable Diffusion
                raise CheckpointError(f"{self.unet_config}: {key} is missing")
        _check(config, _UNET_FACTS, self.unet_config)
        network: UNet2DConditionModel = _construct(
            lambda: UNet2DConditionModel.from_config(dict(config)), self.unet_config
        )
        return _fit(network, read_weights(self.unet_weights), self.unet_weights)

    def autoencoder(self, *, fast: bool = False) -> Vae:
        """The VAE, or the small autoencoder whose decoder is the ``fast`` one.

        Raises:
            CheckpointError: no ``taesd/`` in the checkpoint, or file and key that do not fit.
        """
        folder = self.taesd if fast else self.vae
        if folder is None:
            raise CheckpointError(
                f"{self.root}: taesd/ is missing, --decoder fast needs it",
                remedy="musetalk export fetch --only taesd, or build with --decoder full",
            )
        config = _read_config(folder / "config.json")
        name = config.get("_class_name", "AutoencoderKL")
        if name not in _VAE_CLASSES or (fast and name != "AutoencoderTiny"):
            wanted = "AutoencoderTiny" if fast else " or ".join(_VAE_CLASSES)
            raise CheckpointError(f"{folder / 'config.json'}: _class_name is {name}, not {wanted}")
        _check(config, _VAE_FACTS, folder / "config.json")
        network: Vae = _construct(
            lambda: _VAE_CLASSES[name].from_config(dict(config)), folder / "config.json"
        )
        path = _weights_in(folder)
        return _fit(network, modern_vae_names(read_weights(path)), path)

    def whisper_encoder(self) -> WhisperEncoder:
        """Whisper's encoder.

        Raises:
            CheckpointError: no ``whisper/`` in the checkpoint, or file and key that do not fit.
        """
        if self.whisper is None:
            raise CheckpointError(f"{self.root}: whisper/ is missing")
        path = self.whisper / "config.json"
        config = _read_config(path)
        _check(config, _WHISPER_FACTS, path)
        network = _construct(lambda: WhisperEncoder(WhisperConfig(**config)), path)
        file = _weights_in(self.whisper)
        return _fit(network, whisper_encoder_names(read_weights(file)), file)

    def face_parsing(self) -> BiSeNet:
        """The face parsing network.

        Raises:
            CheckpointError: its weights are not there, or file and key that do not fit.
        """
        if self.parsing is None:
            raise CheckpointError(f"{self.root}: face-parse-bisent/79999_iter.pth is missing")
        with torch.device("meta"):
            network = BiSeNet()
        return _fit(network, read_weights(self.parsing), self.parsing)

    def sources(self, *, fast: bool) -> list[Path]:
        """The config and weight files that a build with this decoder reads."""
        files = [self.unet_config, self.unet_weights, self.vae / "config.json"]
        files.append(_weights_in(self.vae))
        for folder in (self.whisper, self.taesd if fast else None):
            if folder is not None:
                files += [folder / "config.json", _weights_in(folder)]
        if self.parsing is not None:
            files.append(self.parsing)
        return files
