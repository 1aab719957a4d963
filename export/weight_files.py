"""Read weight files without running anything that hides in them."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from safetensors.torch import load_file

from export.attention_names import Weights
from orchestrator.errors import CheckpointError

_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "HalfStorage"): torch.HalfStorage,
    ("torch", "LongStorage"): torch.LongStorage,
}


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and ordered dictionaries, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is not a weight") from None


class _TensorPickle(ModuleType):
    """What ``torch.load`` takes as ``pickle_module``."""

    Unpickler = _TensorUnpickler

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        return _TensorUnpickler(file, **options).load()


def read_weights(path: Path) -> Weights:
    """Read ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` into a state dict on the CPU.

    The oldest format of PyTorch (that of ``79999_iter.pth``) is read too, by an unpickler that
    knows tensors only, since ``weights_only`` refuses that format.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else than weights.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", remedy="see the checkpoint layout")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        if zipped:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        else:
            loaded = torch.load(
                path,
                map_location="cpu",
                weights_only=False,
                pickle_module=_TensorPickle("tensor_pickle"),
            )
    except Exception as error:  # a damaged pickle can raise anything
        # Torch explains at length; the first sentence says what is wrong.
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise CheckpointError(
            f"{path}: not a readable weight file: {reason}", remedy="fetch it again"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise CheckpointError(f"{path}: holds no state dict of tensors")
    return dict(loaded)
