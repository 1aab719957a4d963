"""A repository with other configurations, to measure what they change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2


def altered(
    repository: Path, copy: Path, change: Callable[[model_config_pb2.ModelConfig], None]
) -> Path:
    """Copy a repository but not its weights, which become links.

    Args:
        repository: a built one; nothing of it is changed.
        copy: folder to make, on the same disk or another.
        change: is given the configuration of each model, and alters it.

    Returns:
        ``copy``.
    """
    shutil.copytree(repository, copy, copy_function=_link)
    for path in copy.glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        change(config)
        path.unlink()  # it is a link to the original
        path.write_text(text_format.MessageToString(config))
    return copy


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
