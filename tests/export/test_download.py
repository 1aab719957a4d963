"""The downloader against a loopback server that speaks the hub's protocol."""

from __future__ import annotations

import fcntl
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.download import Downloader, Target
from orchestrator.errors import CheckpointError, SetupError
from tests.export.hub import BIG, REVISION, SMALL, Hub, running_hub, sha256


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def loader() -> Iterator[Downloader]:
    with httpx.Client(follow_redirects=True, timeout=5.0) as client:
        yield Downloader(client, pause=0.01)


def target(hub: Hub, tmp_path: Path, name: str = "unet.pth", **changes: object) -> Target:
    values: dict[str, object] = {
        "url": f"{hub.base}/org/repo/resolve/{REVISION}/{name}",
        "path": tmp_path / "musetalkV15" / name,
        "size": len(BIG),
        "sha256": sha256(BIG),
    }
    hub.files.setdefault(f"/org/repo/resolve/{REVISION}/unet.pth", BIG)
    hub.files.setdefault(f"/org/repo/resolve/{REVISION}/config.json", SMALL)
    return Target(**{**values, **changes})  # type: ignore[arg-type]


def test_follows_the_redirect_and_publishes(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    reports: list[tuple[int, int | None]] = []
    loader.fetch(wanted, lambda done, total: reports.append((done, total)))
    assert wanted.path.read_bytes() == BIG
    assert not wanted.part.exists()
    assert reports[-1] == (len(BIG), len(BIG))
    assert wanted.complete()


def test_continues_a_transfer_that_breaks(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.cuts = [300_000, 300_000]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG
    asked = [part for path, part in hub.seen if path.startswith("/store")]
    assert asked[0] is None
    assert all(part is not None and part != "bytes=0-" for part in asked[1:])
    assert len(asked) == 3


def test_continues_the_part_of_an_earlier_run(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG[:500_000])
    assert wanted.missing() == len(BIG) - 500_000
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG
    assert {part for _, part in hub.seen} == {"bytes=500000-"}


def test_finishes_a_part_that_is_already_whole(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_starts_again_where_the_server_knows_no_ranges(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    hub.ranges = False
    hub.cuts = [300_000]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_starts_again_when_the_part_is_too_long(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    wanted.part.write_bytes(BIG + b"x")
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_gives_up_where_nothing_more_comes_and_keeps_the_part(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    hub.cuts = [300_000] + [0] * 10
    wanted = target(hub, tmp_path)
    with pytest.raises(SetupError, match="run it again to continue"):
        loader.fetch(wanted)
    assert not wanted.path.exists()
    assert 0 < wanted.part.stat().st_size <= 300_000
    hub.cuts = []
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_a_wrong_checksum_publishes_nothing(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    key = f"/org/repo/resolve/{REVISION}/unet.pth"
    hub.files[key] = BIG[:-1] + b"\0"
    with pytest.raises(CheckpointError, match="checksum"):
        loader.fetch(wanted)
    assert not wanted.path.exists()
    assert not wanted.part.exists()


def test_another_size_is_refused_before_the_download(
    hub: Hub, tmp_path: Path, loader: Downloader
) -> None:
    wanted = target(hub, tmp_path, size=len(BIG) + 1)
    reports: list[int] = []
    with pytest.raises(CheckpointError, match="the official file has"):
        loader.fetch(wanted, lambda done, _total: reports.append(done))
    assert not reports


@pytest.mark.parametrize(("name", "data"), [("config.json", SMALL), ("unet.pth", BIG)])
def test_without_a_pinned_sum_the_hubs_tag_is_the_check(
    hub: Hub, tmp_path: Path, loader: Downloader, name: str, data: bytes
) -> None:
    wanted = target(hub, tmp_path, name, size=None, sha256=None)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == data


def test_without_any_sum_it_refuses(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.tags = False
    wanted = target(hub, tmp_path, "config.json", size=None, sha256=None)
    with pytest.raises(CheckpointError, match="cannot be verified"):
        loader.fetch(wanted)
    assert not wanted.path.exists()


def test_a_missing_file_is_named(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path, "gone.pth")
    with pytest.raises(SetupError, match=r"gone\.pth: the server answered 404"):
        loader.fetch(wanted)
    assert len(hub.seen) == 1


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    hub.statuses = [503, 429]
    wanted = target(hub, tmp_path)
    loader.fetch(wanted)
    assert wanted.path.read_bytes() == BIG


def test_no_network_is_said_at_once(tmp_path: Path, loader: Downloader) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Target(
            f"http://127.0.0.1:{closed.getsockname()[1]}/x", tmp_path / "x", 1, sha256(b"x")
        )
        with pytest.raises(SetupError, match="check the network"):
            loader.fetch(nobody)


def test_two_runs_do_not_mix(hub: Hub, tmp_path: Path, loader: Downloader) -> None:
    wanted = target(hub, tmp_path)
    wanted.part.parent.mkdir(parents=True)
    with wanted.part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="another process"):
            loader.fetch(wanted)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=len(BIG) - 1), max_size=3))
def test_any_cuts_end_in_the_same_bytes(cuts: list[int]) -> None:
    with (
        running_hub() as hub,
        tempfile.TemporaryDirectory() as folder,
        httpx.Client(follow_redirects=True, timeout=5.0) as client,
    ):
        hub.cuts = list(cuts)
        wanted = target(hub, Path(folder))
        Downloader(client, pause=0.0).fetch(wanted)
        assert wanted.path.read_bytes() == BIG
