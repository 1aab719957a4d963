"""``model_repository/tensorrt``: the configs of a GPU repository as they are in git, no engines.

They are for reading and reviewing: whoever changes a definition sees what servers will be told.
``python -m export.gpu.skeleton`` writes them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from export.gpu.config import tensorrt_config
from export.gpu.profiles import batch_ranges
from export.model_config import LIPSYNC, MODELS, lipsync_config, to_text

FOLDER: Final = Path(__file__).parents[2] / "model_repository" / "tensorrt"


def configs() -> dict[str, str]:
    """Text of each model's config.pbtxt; what only a build knows is empty in it."""
    made = {
        name: to_text(tensorrt_config(model, batch_ranges(model.max_batch), key=""))
        for name, model in MODELS.items()
    }
    return made | {LIPSYNC.name: to_text(lipsync_config(weights_id=""))}


def write(folder: Path) -> None:
    """Write the configs.

    Args:
        folder: gets a folder for each model.
    """
    for name, text in configs().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.pbtxt").write_text(text)


if __name__ == "__main__":
    write(FOLDER)
