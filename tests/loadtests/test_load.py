"""``make load`` for real, a few seconds of it: the report is written, the objective decides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(300)]


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "loadtests.load", "--cache", str(tmp_path / "cache")),
            *("--output", str(tmp_path / "load"), "--first-frame", "60", *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def turns(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "load" / "turns.jsonl").open()]


def test_an_impossible_objective_fails_the_run(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        *("--mix", "triton", "--users", "1", "--seconds", "8", "--on-time", "1.01"),
        *("--shape", "soak"),
    )
    assert found.returncode == 1, found.stderr
    assert "MISSED: frames on time" in found.stdout
    assert "descriptors of triton: last quarter against the second" in found.stdout
    assert turns(tmp_path)


def test_every_kind_of_user_gets_what_it_asks_for(tmp_path: Path) -> None:
    """The objectives are those of a machine that other tests use too; cross-talk is as always."""
    found = run(
        tmp_path,
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
