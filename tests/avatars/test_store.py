from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.media import encode
from orchestrator.avatars.prepare import trim_cache
from orchestrator.avatars.store import AvatarFile, AvatarStore
from orchestrator.errors import NotFoundError, SetupError, UsageError


def make(name: str = "ann", frames: int = 3, size: tuple[int, int] = (64, 48)) -> Avatar:
    rng = np.random.default_rng(frames)
    width, height = size
    pictures = rng.integers(0, 255, (frames, height // 8, width // 8, 3)).astype(np.uint8)
    alpha = rng.integers(1, 255, (7, 5)).astype(np.uint8)
    return Avatar(
        id="x",
        name=name,
        width=width,
        height=height,
        jpegs=tuple(encode(np.kron(p, np.ones((8, 8, 1), np.uint8))) for p in pictures),
        latents=rng.standard_normal((frames, 8, 32, 32)).astype(np.float16),
        boxes=np.tile(np.array([10, 5, 40, 45], np.int32), (frames, 1)),
        squares=np.tile(np.array([-5, 0, 55, 60], np.int32), (frames, 1)),
        masks=tuple(BlendMask(12 + k, 20, alpha) for k in range(frames)),
        metadata={"consent": "test", "notes": ["é"]},
    )


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    avatar, store = make(), AvatarStore(tmp_path)
    store.add(avatar)
    read = store.get("ann")
    assert read.jpegs == avatar.jpegs and read.metadata == avatar.metadata
    np.testing.assert_array_equal(read.latents, avatar.latents)
    np.testing.assert_array_equal(read.boxes, avatar.boxes)
    np.testing.assert_array_equal(read.squares, avatar.squares)
    for one, other in zip(read.masks, avatar.masks, strict=True):
        assert (one.x0, one.y0) == (other.x0, other.y0)
        np.testing.assert_array_equal(one.alpha, other.alpha)


def test_everyone_shares_one_until_it_is_replaced(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path)
    store.add(make())
    first = store.get("ann")
    assert store.get("ann") is first
    store.add(make(frames=5))
    assert len(store.get("ann")) == 5
    assert store.list() == ["ann"]
    store.remove("ann")
    with pytest.raises(NotFoundError):
        store.get("ann")
    with pytest.raises(NotFoundError):
        store.remove("ann")


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a\x00b", "x" * 65])
def test_names_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        AvatarStore(tmp_path).get(name)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path)
    store.add(make())
    path = tmp_path / "ann.npz"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(SetupError, match="damaged"):
        store.get("ann")


def test_a_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AvatarStore(tmp_path)
    store.add(make())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(SetupError, match="No space left"):
        store.add(make(frames=9))
    monkeypatch.undo()
    assert len(store.get("ann")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["ann.npz"]


def test_nothing_there_reads_as_none(tmp_path: Path) -> None:
    assert AvatarFile(tmp_path / "x.npz").read() is None


@given(st.integers(1, 30), st.integers(0, 500))
def test_the_cycle_goes_forward_and_back(count: int, frame: int) -> None:
    avatar = make(frames=1)
    object.__setattr__(avatar, "jpegs", avatar.jpegs * count)
    cycle = [*range(count), *reversed(range(count))]
    assert avatar.cycle_index(frame) == cycle[frame % (2 * count)]


def test_an_empty_file_is_said_as_well(tmp_path: Path) -> None:
    (tmp_path / "ann.npz").write_bytes(b"")
    with pytest.raises(SetupError, match="damaged"):
        AvatarStore(tmp_path).get("ann")


def test_the_cache_of_preparations_is_bounded(tmp_path: Path) -> None:
    for name, used in {"used": 3, "old": 2, "older": 1, "new": 4}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(bytes(100))
        os.utime(path, (used, used))
    (tmp_path / ".writing.part").write_bytes(bytes(500))
    trim_cache(tmp_path, 250, keep=tmp_path / "new.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"used.npz", "new.npz", ".writing.part"}
    trim_cache(tmp_path, 1, keep=tmp_path / "new.npz")
    assert {path.name for path in tmp_path.glob("*.npz")} == {"new.npz"}
