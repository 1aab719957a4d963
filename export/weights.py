"""The official weights: where they are, pinned to a commit and a hash, and on which terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a repository on the model hub.

    Attributes:
        name: path in that repository.
        path: where it goes in MuseTalk's layout.
        size: bytes.
        sha256: of the content.
    """

    name: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """Files that belong together, from one commit of one repository.

    Attributes:
        repository: on the hub.
        revision: commit.
        licence: what applies to these weights, in one line.
        files: what is fetched of it.
    """

    repository: str
    revision: str
    licence: str
    files: tuple[File, ...]


PARTS: dict[str, Part] = {
    "musetalk": Part(
        "TMElyralab/MuseTalk",
        "3ef28bc5cff08c90ad8178a25f1b570cd800170f",
        "code MIT; the weights' page says creativeml-openrail-m: commercial use is allowed, its "
        "use restrictions (no deception, no harm to persons, ...) pass on to your users",
        (
            File(
                "musetalkV15/musetalk.json",
                "musetalkV15/musetalk.json",
                748,
                "5b6923aee04d71692e0e9846c471e0a4ea07a4f686d39545e472bd4ba17e1b47",
            ),
            File(
                "musetalkV15/unet.pth",
                "musetalkV15/unet.pth",
                3_400_074_924,
                "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007",
            ),
        ),
    ),
    "sd-vae": Part(
        "stabilityai/sd-vae-ft-mse",
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        "MIT",
        (
            File(
                "config.json",
                "sd-vae/config.json",
                547,
                "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e",
            ),
            File(
                "diffusion_pytorch_model.safetensors",
                "sd-vae/diffusion_pytorch_model.safetensors",
                334_643_276,
                "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
            ),
        ),
    ),
    "whisper": Part(
        "openai/whisper-tiny",
        "169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        "MIT (code), Apache-2.0 (model card)",
        (
            File(
                "config.json",
                "whisper/config.json",
                1_983,
                "ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98",
            ),
            File(
                "model.safetensors",
                "whisper/model.safetensors",
                151_061_672,
                "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
            ),
        ),
    ),
    "face-parsing": Part(
        "ManyOtherFunctions/face-parse-bisent",
        "0073b233a5a3c4b1377d4dbf49245017938a72b5",
        "code MIT; trained on CelebAMask-HQ, whose terms are non-commercial: without this part "
        "masks come from face landmarks",
        (
            File(
                "79999_iter.pth",
                "face-parse-bisent/79999_iter.pth",
                53_289_463,
                "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            ),
        ),
    ),
    "taesd": Part(
        "madebyollin/taesd",
        "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
        "MIT; the fast decoder",
        (
            File(
                "diffusion_pytorch_model.safetensors",
                "taesd/diffusion_pytorch_model.safetensors",
                9_793_292,
                "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549",
            ),
        ),
    ),
}

# TAESD's own config is AutoencoderTiny's default in every field that matters; its hash at this
# commit is not known to us, so it is written here instead of being fetched unchecked.
TAESD_CONFIG = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
