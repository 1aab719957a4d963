from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.store import AvatarFile, AvatarStore
from orchestrator.errors import NotFoundError
from orchestrator.rendering.gallery import PORTRAITS, Gallery, portraits
from orchestrator.rendering.live import idle_clip
from orchestrator.settings import Settings


class Encoder:
    """Encodes every crop as its own number of weights."""

    def __init__(self, weights: float) -> None:
        self.weights = weights
        self.crops = 0

    async def encode_crops(self, crops: Any, *, timeout: Any = None) -> npt.NDArray[np.float16]:
        self.crops += len(crops)
        return np.full((len(crops), 8, 32, 32), self.weights, np.float16)


def make(name: str, grey: int = 90) -> Avatar:
    picture = np.full((64, 80, 3), grey, np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    return Avatar(
        id=name,
        name=name,
        width=80,
        height=64,
        jpegs=(jpeg,) * 3,
        latents=np.zeros((3, 8, 32, 32), np.float16),
        boxes=np.tile(np.array([20, 10, 50, 50], np.int32), (3, 1)),
        squares=np.tile(np.array([10, 5, 60, 55], np.int32), (3, 1)),
        masks=(BlendMask(25, 30, np.full((10, 10), 255, np.uint8)),) * 3,
        metadata={"weights": "of another server"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "portraits"
    path.mkdir()
    for name in ("bea", "adam"):
        AvatarFile(path / f"{name}.npz").write(make(name))
    return path


@pytest.fixture
def store(tmp_path: Path) -> AvatarStore:
    return AvatarStore(tmp_path / "own")


async def test_own_avatars_and_portraits_by_name(folder: Path, store: AvatarStore) -> None:
    gallery = Gallery(Settings(), Encoder(1), store, folder)  # type: ignore[arg-type]
    store.add(make("zoe"))
    assert gallery.names() == ["adam", "bea", "zoe"]
    assert (await gallery.get("zoe")).name == "zoe"
    assert (await gallery.get("bea")).name == "bea"
    assert (await gallery.get(None)).name == "adam"


async def test_without_portraits_the_first_own_avatar_is_the_default(
    tmp_path: Path, store: AvatarStore
) -> None:
    gallery = Gallery(Settings(), Encoder(1), store, tmp_path / "none")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no avatar yet"):
        await gallery.get(None)
    store.add(make("zoe"))
    assert (await gallery.get(None)).name == "zoe"


@pytest.mark.parametrize("name", ["nobody", "", "../adam", "/etc/passwd", "a" * 500, "adam.npz"])
async def test_other_names_are_not_there(folder: Path, store: AvatarStore, name: str) -> None:
    gallery = Gallery(Settings(), Encoder(1), store, folder)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="there are: adam, bea"):
        await gallery.get(name)


async def test_latents_are_those_of_the_weights_served_and_made_once(
    folder: Path, store: AvatarStore
) -> None:
    encoder = Encoder(0.5)
    gallery = Gallery(Settings(), encoder, store, folder)  # type: ignore[arg-type]
    first = await gallery.get("adam")
    assert (first.latents == 0.5).all()
    crops = encoder.crops
    assert await gallery.get("adam") is first
    assert encoder.crops == crops


async def test_an_avatar_that_is_replaced_is_read_again(folder: Path, store: AvatarStore) -> None:
    gallery = Gallery(Settings(), Encoder(1), store, folder)  # type: ignore[arg-type]
    store.add(make("zoe", 40))
    dark = await gallery.get("zoe")
    store.add(dataclasses.replace(make("zoe", 200), id="other"))
    bright = await gallery.get("zoe")
    assert bright.frame(0).mean() > dark.frame(0).mean() + 100
    store.remove("zoe")
    with pytest.raises(NotFoundError):
        await gallery.get("zoe")


def test_a_prepared_portrait_wins_over_its_clip(folder: Path) -> None:
    (folder / "adam.mp4").write_bytes(b"")
    (folder / "cleo.mp4").write_bytes(b"")
    (folder / "README.md").write_text("")
    found = portraits(folder)
    assert list(found) == ["adam", "bea", "cleo"]
    assert found["adam"].suffix == ".npz" and found["cleo"].suffix == ".mp4"


def test_shipped_portraits_can_be_read() -> None:
    for name, path in portraits(PORTRAITS).items():
        if path.suffix == ".npz":
            avatar = AvatarFile(path).read()
            assert avatar is not None and avatar.name == name


async def test_a_deleted_avatar_leaves_memory_with_its_idle_video(
    folder: Path, store: AvatarStore
) -> None:
    gallery = Gallery(Settings(), Encoder(1), store, folder)  # type: ignore[arg-type]
    clip = await idle_clip(await gallery.get("bea"))
    await clip.finish()
    assert await idle_clip(await gallery.get("bea")) is clip
    gallery.forget("bea")
    gallery.forget("nobody")
    again = await idle_clip(await gallery.get("bea"))
    assert again is not clip
    await again.finish()


async def test_a_poster_is_shown_without_preparing_the_avatar(store: AvatarStore) -> None:
    encoder = Encoder(1)
    gallery = Gallery(Settings(), encoder, store)  # type: ignore[arg-type]
    for name in gallery.portraits:
        jpeg = await gallery.poster(name)
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (720, 1280, 3)
        assert await gallery.poster(name) == jpeg
    store.add(make("zoe", grey=40))
    assert await gallery.poster("zoe") == make("zoe", grey=40).jpegs[0]
    with pytest.raises(NotFoundError, match="no avatar 'nobody'"):
        await gallery.poster("nobody")
    assert encoder.crops == 0
