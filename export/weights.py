"""The official weights: where each file comes from, what it must hash to, what its licence asks.

Sizes and SHA-256 sums come from public records of the files at these revisions; several
independent ones agree on each. A file without a sum is small and not in the hub's LFS store: it
is checked against the hub's own ETag at the pinned revision, which for such files is their git
blob hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_OPENRAIL: Final = (
    "Not to be used: to break the law; to exploit or harm minors; to spread false information "
    "meant to harm; to harass, defame or discriminate against people; with personal data that can "
    "harm them; for fully automated decisions on people's rights; to exploit the weak; for medical "
    "advice; for law enforcement, justice, immigration or asylum decisions. Whoever you pass "
    "the weights or a service made with them on to must be bound to the same restrictions."
)


@dataclass(frozen=True)
class WeightFile:
    """One file of a part.

    Attributes:
        source: path inside the hub's repository.
        path: path inside the checkpoint (MuseTalk's ``models/`` layout).
        size: bytes; None where it is not known.
        sha256: hex digest; None where the hub's ETag at the pinned revision is the check.
    """

    source: str
    path: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Part:
    """Files of one origin and licence.

    Attributes:
        name: what ``--only`` takes.
        purpose: what the project uses it for.
        repository: on the hub.
        revision: full commit hash.
        licence: its name and where it is stated.
        restrictions: what a user must keep to beyond naming the authors; empty for none.
        files: what is fetched.
    """

    name: str
    purpose: str
    repository: str
    revision: str
    licence: str
    restrictions: str
    files: tuple[WeightFile, ...]


PARTS: Final[tuple[Part, ...]] = (
    Part(
        name="musetalk",
        purpose="UNet: moves the mouth",
        repository="TMElyralab/MuseTalk",
        revision="3ef28bc5cff08c90ad8178a25f1b570cd800170f",
        licence="CreativeML OpenRAIL-M by the tag of its model page; its README allows any use, "
        "commercial too (keep to the stricter one, or ask the authors)",
        restrictions=_OPENRAIL,
        files=(
            WeightFile(
                "musetalkV15/musetalk.json",
                "musetalkV15/musetalk.json",
                748,
                "5b6923aee04d71692e0e9846c471e0a4ea07a4f686d39545e472bd4ba17e1b47",
            ),
            WeightFile(
                "musetalkV15/unet.pth",
                "musetalkV15/unet.pth",
                3_400_074_924,
                "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007",
            ),
        ),
    ),
    Part(
        name="sd-vae",
        purpose="VAE: pictures to latents and back",
        repository="stabilityai/sd-vae-ft-mse",
        revision="31f26fdeee1355a5c34592e401dd41e45d25a493",
        licence="MIT",
        restrictions="",
        files=(
            WeightFile(
                "config.json",
                "sd-vae/config.json",
                547,
                "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e",
            ),
            WeightFile(
                "diffusion_pytorch_model.safetensors",
                "sd-vae/diffusion_pytorch_model.safetensors",
                334_643_276,
                "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
            ),
        ),
    ),
    Part(
        name="whisper",
        purpose="speech to features",
        repository="openai/whisper-tiny",
        revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        licence="Apache-2.0 (model page), MIT (OpenAI's own repository)",
        restrictions="",
        files=(
            WeightFile(
                "config.json",
                "whisper/config.json",
                1_983,
                "ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98",
            ),
            WeightFile(
                "preprocessor_config.json",
                "whisper/preprocessor_config.json",
                184_990,
                "9b5cd03a36fbb8a627c64d98a5b5b126ead95a77720723944487311f0110b666",
            ),
            WeightFile(
                "model.safetensors",
                "whisper/model.safetensors",
                151_061_672,
                "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
            ),
        ),
    ),
    Part(
        name="face-parsing",
        purpose="the blend mask",
        repository="ManyOtherFunctions/face-parse-bisent",
        revision="0073b233a5a3c4b1377d4dbf49245017938a72b5",
        licence="MIT (face-parsing.PyTorch); this copy of it is tagged WTFPL",
        restrictions="Trained on CelebAMask-HQ, whose terms allow non-commercial research only. "
        "Without this part masks follow the landmarks of the face.",
        files=(
            WeightFile(
                "79999_iter.pth",
                "face-parse-bisent/79999_iter.pth",
                53_289_463,
                "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            ),
        ),
    ),
    Part(
        name="taesd",
        purpose="the fast decoder",
        repository="madebyollin/taesd",
        revision="614f76814bbe30edbe2e627ace1c2234c81a2c0e",
        licence="MIT",
        restrictions="",
        files=(
            WeightFile("config.json", "taesd/config.json", None, None),
            WeightFile(
                "diffusion_pytorch_model.safetensors",
                "taesd/diffusion_pytorch_model.safetensors",
                9_793_292,
                "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549",
            ),
        ),
    ),
)
"""What the project reads, most important first."""
