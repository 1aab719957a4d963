"""``make load`` for real, a few seconds of it: the report is written, the objective decides."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests import load
from orchestrator.errors import SetupError

ROOT = Path(__file__).parent.parent.parent


def real_run(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.triton(pytest.mark.slow(pytest.mark.timeout(300)(test)))


@pytest.fixture
def cache(tmp_path: Path, portraits_ready: Callable[[Path], Path]) -> Path:
    return portraits_ready(tmp_path / "cache")


def run(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "loadtests.load", "--cache", str(cache)),
            *("--output", str(cache.parent / "load"), "--first-frame", "60", *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def turns(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "load" / "turns.jsonl").open()]


async def test_a_locust_that_hangs_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []

    async def hangs(*_: object) -> asyncio.subprocess.Process:
        started.append(await asyncio.create_subprocess_exec("sleep", "60"))
        return started[0]

    monkeypatch.setattr(load, "_started", hangs)
    monkeypatch.setattr(load, "_ENDING_SECONDS", 0)
    given = argparse.Namespace(
        **dict.fromkeys(("mix", "shape", "users", "on_time", "first_frame", "failures"), 1),
        **{"seconds": 0.1, "think": (0, 1), "speaking": 0, "output": tmp_path},
    )
    with pytest.raises(SetupError, match=r"did not end .*locust\.log"):
        await load._locust(given, {})
    assert started[0].returncode


@real_run
def test_an_impossible_objective_fails_the_run(tmp_path: Path, cache: Path) -> None:
    found = run(
        cache,
        *("--mix", "triton", "--users", "1", "--seconds", "8", "--on-time", "1.01"),
        *("--shape", "soak"),
    )
    assert found.returncode == 1, found.stderr
    assert "MISSED: frames on time" in found.stdout
    assert "descriptors of triton: last quarter against the second" in found.stdout
    assert turns(tmp_path)


@real_run
def test_every_kind_of_user_gets_what_it_asks_for(tmp_path: Path, cache: Path) -> None:
    """The objectives are those of a machine that other tests use too; cross-talk is as always."""
    found = run(
        cache,
        *("--mix", "live:2,grpc,http,video", "--users", "5", "--seconds", "6"),
        *("--on-time", "0", "--think", "0.1", "0.3"),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "met: cross-talk" in found.stdout
    seen = turns(tmp_path)
    assert {turn["kind"] for turn in seen} == {"live", "grpc", "http", "video"}
    assert any(turn["kind"] == "live" and not turn["error"] for turn in seen)
    folder = tmp_path / "load"
    for plot in ("latency", "on_time", "batch", "queue", "cpu", "memory"):
        assert (folder / f"{plot}.png").stat().st_size > 5_000
        assert f"{plot}.png" in (folder / "report.html").read_text()
    samples = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    assert samples[-1]["usage"].keys() >= {
        *("triton", "orchestrator", "ffmpeg", "voice", "load generator: viewers"),
        *("load generator: Locust", "load generator: make load"),
    }
    viewers = [sample["usage"].get("load generator: viewers", {}) for sample in samples]
    assert min(used["processes"] for used in viewers if used.get("processes")) == 1
    counters = [sample["triton"].get("nv_inference_exec_count") for sample in samples]
    assert counters[-1] > counters[0]
