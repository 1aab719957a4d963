"""What a manifest says of a repository, and who notices when that is not true any more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import onnx
import pytest
from onnx import numpy_helper

from export.build import up_to_date
from export.manifest import Manifest, weights_id
from export.verify import _require_weights, verify
from orchestrator.errors import RepositoryError
from orchestrator.inference import Inference, ModelInfo


def change_a_weight(path: Path) -> None:
    """One value of the largest tensor: too little for the limits of bf16."""
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[5] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


@pytest.fixture
def repository(tmp_path: Path, golden_repository: tuple[Path, Manifest, list[str]]) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(golden_repository[0], tmp_path / "repository"))


@pytest.fixture(params=["unet/config.pbtxt", "vae_decoder/1/model.onnx", "a weight"])
def damaged(request: pytest.FixtureRequest, repository: Path) -> Path:
    """The file that was deleted or changed."""
    if request.param == "a weight":
        path = repository / "unet" / "1" / "model.onnx"
        change_a_weight(path)
    else:
        path = repository / request.param
        path.unlink()
    return path


def is_up_to_date(checkpoint: Path, repository: Path) -> bool:
    return up_to_date(checkpoint, repository, "cpu", "fp32", "full") is not None


def test_what_was_built_is_not_damaged(repository: Path, golden_checkpoint: Path) -> None:
    assert Manifest.read(repository).damaged(repository) is None
    assert is_up_to_date(golden_checkpoint, repository)


async def test_a_file_that_is_not_what_was_built(
    repository: Path, golden_checkpoint: Path, damaged: Path
) -> None:
    assert Manifest.read(repository).damaged(repository) == damaged
    assert not is_up_to_date(golden_checkpoint, repository)
    with pytest.raises(RepositoryError, match=str(damaged)):
        await verify(golden_checkpoint, repository)


@pytest.mark.parametrize("content", ["", '{"format": 99}'])
def test_a_repository_of_another_version_is_built_again(
    repository: Path, golden_checkpoint: Path, content: str
) -> None:
    (repository / "manifest.json").write_text(content)
    assert not is_up_to_date(golden_checkpoint, repository)


class Served:
    """A server that says which weights it has, or does not."""

    def __init__(self, **parameters: str) -> None:
        self._parameters = parameters

    async def model_config(self, name: str) -> ModelInfo:
        return ModelInfo(name, "ensemble", 8, (), (), self._parameters)


async def test_a_server_of_other_weights_is_not_measured() -> None:
    for served in (Served(weights_id="abc"), Served()):
        await _require_weights(cast(Inference, served), "abc", "host:1")
    with pytest.raises(RepositoryError, match="host:1 serves the weights xyz"):
        await _require_weights(cast(Inference, Served(weights_id="xyz")), "abc", "host:1")


def test_weights_id_depends_on_weights_and_decoder() -> None:
    sources = {"a": "1", "b": "2"}
    assert weights_id(sources, "full") == weights_id({"b": "2", "a": "1"}, "full")
    others = {weights_id({"a": "1", "b": "3"}, "full"), weights_id(sources, "fast")}
    assert weights_id(sources, "full") not in others and len(others) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "x": 2}'])
def test_broken_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RepositoryError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"manifest\.json"):
        Manifest.read(tmp_path)
