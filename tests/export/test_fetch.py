"""``musetalk export fetch`` against a loopback server that speaks the hub's protocol."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from export import fetch
from export.weights import PARTS, Part, WeightFile
from orchestrator.errors import SetupError, UsageError
from tests.export.hub import BIG, REVISION, SMALL, Hub, running_hub, sha256


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def parts(hub: Hub) -> tuple[Part, ...]:
    hub.files[f"/org/repo/resolve/{REVISION}/musetalkV15/unet.pth"] = BIG
    hub.files[f"/org/small/resolve/{REVISION}/config.json"] = SMALL
    unet = WeightFile("musetalkV15/unet.pth", "musetalkV15/unet.pth", len(BIG), sha256(BIG))
    return (
        Part("musetalk", "UNet", "org/repo", REVISION, "OpenRAIL", "Do no harm.", (unet,)),
        Part(
            "taesd",
            "fast decoder",
            "org/small",
            REVISION,
            "MIT",
            "",
            (WeightFile("config.json", "taesd/config.json", None, None),),
        ),
    )


def console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200), text


def test_fetches_what_is_needed_and_then_nothing(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    out, text = console()
    fetch.run(tmp_path / "ckpt", accept=True, endpoint=hub.base, parts=parts, console=out)
    files = {
        str(p.relative_to(tmp_path / "ckpt")) for p in (tmp_path / "ckpt").rglob("*") if p.is_file()
    }
    assert files == {"LICENCES.txt", "musetalkV15/unet.pth", "taesd/config.json"}
    assert "Do no harm." in (tmp_path / "ckpt" / "LICENCES.txt").read_text()
    assert text.getvalue().index("Do no harm.") < text.getvalue().index("downloading")
    asked = len(hub.seen)
    out, text = console()
    fetch.run(tmp_path / "ckpt", accept=True, endpoint=hub.base, parts=parts, console=out)
    assert len(hub.seen) == asked
    assert text.getvalue().count("already there") == 2
    assert (tmp_path / "ckpt" / "LICENCES.txt").read_text().count("Do no harm.") == 1


def test_only_some_parts(hub: Hub, tmp_path: Path, parts: tuple[Part, ...]) -> None:
    fetch.run(tmp_path, only=["taesd"], accept=True, endpoint=hub.base, parts=parts)
    assert (tmp_path / "taesd" / "config.json").read_bytes() == SMALL
    assert not (tmp_path / "musetalkV15").exists()
    with pytest.raises(UsageError, match="there is no part teeth"):
        fetch.run(tmp_path, only=["teeth"], accept=True, endpoint=hub.base, parts=parts)


def test_without_consent_nothing_is_asked_for(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    out, text = console()
    with pytest.raises(UsageError, match="--accept-licences"):
        fetch.run(tmp_path / "ckpt", endpoint=hub.base, parts=parts, console=out)
    assert "Do no harm." in text.getvalue()
    assert not hub.seen
    assert not (tmp_path / "ckpt").exists()


def test_a_file_that_is_in_the_way_is_kept(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    mine = tmp_path / "musetalkV15" / "unet.pth"
    mine.parent.mkdir()
    mine.write_bytes(b"my own")
    with pytest.raises(SetupError, match="not the official file"):
        fetch.run(tmp_path, accept=True, endpoint=hub.base, parts=parts)
    assert mine.read_bytes() == b"my own"


def test_no_room_is_said_before_the_download(
    hub: Hub, tmp_path: Path, parts: tuple[Part, ...]
) -> None:
    huge = WeightFile("a", "a", 1 << 60, sha256(b""))
    part = Part("a", "test", "org/a", REVISION, "MIT", "", (huge,))
    with pytest.raises(SetupError, match="GB free, the download needs"):
        fetch.run(tmp_path, accept=True, endpoint=hub.base, parts=[part])
    assert not hub.seen


@pytest.mark.parametrize("endpoint", ["ftp://x", "huggingface.co", "http://"])
def test_a_bad_address_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(UsageError, match="give one such as"):
        fetch.run(tmp_path, accept=True, endpoint=endpoint)


def test_the_command_line_passes_everything_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.cli import app

    calls: list[tuple[object, dict[str, object]]] = []
    monkeypatch.setattr(fetch, "run", lambda directory, **rest: calls.append((directory, rest)))
    result = CliRunner().invoke(
        app,
        ["fetch", str(tmp_path), "--only", "taesd", "--accept-licences", "--endpoint", "http://m"],
    )
    assert result.exit_code == 0, result.output
    assert calls == [(tmp_path, {"only": ["taesd"], "accept": True, "endpoint": "http://m"})]


def test_every_official_file_is_pinned() -> None:
    for part in PARTS:
        assert len(part.revision) == 40
        assert int(part.revision, 16)
        for file in part.files:
            assert (file.size is None) == (file.sha256 is None)
            if file.sha256 is None:
                assert file.path.endswith(".json")
            else:
                assert len(file.sha256) == 64
                assert int(file.sha256, 16)
    assert len({file.path for part in PARTS for file in part.files}) == 10
