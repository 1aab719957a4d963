"""Weight files: every format is read, none runs code, damage is one clear error."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from export.weight_files import read_weights
from orchestrator.errors import CheckpointError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}


class Attack:
    """Pickles to a call that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.pt", "legacy.pth", "w.safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reads_every_format(tmp_path: Path, name: str, wrapped: bool) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    else:
        content: Any = OrderedDict(WEIGHTS)
        if wrapped:
            content = {"state_dict": content}
        torch.save(content, path, _use_new_zipfile_serialization=not name.startswith("legacy"))
    read = read_weights(path)
    assert set(read) == set(WEIGHTS)
    for key, value in WEIGHTS.items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value)


@pytest.mark.parametrize("zipped", [False, True])
def test_runs_no_code_of_a_file(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "ran"
    torch.save({"a": Attack(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.pth: not a readable weight file"):
        read_weights(path)
    assert not marker.exists()


def test_runs_no_code_of_a_bare_pickle(tmp_path: Path) -> None:
    path, marker = tmp_path / "w.bin", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(CheckpointError):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.ones(1)}, "text"])
def test_refuses_what_is_no_state_dict(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="no state dict"):
        read_weights(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file"):
        read_weights(tmp_path / "gone.pth")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["w.pth", "legacy.pth", "w.safetensors"]),
    length=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
)
def test_damage_is_an_error_of_ours_or_harmless(
    tmp_path: Path, kind: str, length: float, flips: list[tuple[float, int]]
) -> None:
    whole = tmp_path / f"whole-{kind}"
    if not whole.exists():
        if whole.suffix == ".safetensors":
            save_file(WEIGHTS, whole)
        else:
            torch.save(WEIGHTS, whole, _use_new_zipfile_serialization=kind == "w.pth")
    content = bytearray(whole.read_bytes())
    content = content[: int(len(content) * length)]
    for where, value in flips:
        if content:
            content[int(where * len(content))] ^= value
    damaged = tmp_path / kind
    damaged.write_bytes(content)
    try:
        read = read_weights(damaged)
    except CheckpointError as error:
        assert kind in str(error) and "\n" not in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in read.values())
