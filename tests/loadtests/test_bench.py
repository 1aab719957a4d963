from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from loadtests.bench import run
from loadtests.bench_batching import unbatched
from loadtests.bench_cache import BenchCache
from loadtests.bench_model import Part, what_limits
from loadtests.bench_report import Row
from orchestrator.errors import SetupError


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_quick_run_measures_every_row_of_the_small_networks(tmp_path: Path) -> None:
    output = tmp_path / "out" / "bench.json"
    assert await run(output, tmp_path / "cache", quick=True) == 0

    data = json.loads(output.read_text())
    assert data["machine"]["cores"] >= 1 and data["machine"]["cpu"]
    rows = {row["name"]: row for row in data["rows"]}
    assert not any(row["failed"] for row in rows.values())
    assert rows["Triton against PyTorch"]["value"] > 0
    assert rows["8 clients against 1, batch 1 each"]["value"] > 0
    # Both sides computed the same faces; other weights or inputs would give tens of levels.
    (triton,) = [row for name, row in rows.items() if name.startswith(("Triton bf", "Triton fp"))]
    assert triton["details"]["mean_difference"] < 6
    (share,) = [row for name, row in rows.items() if name.startswith("share of")]
    assert 0 < share["value"] < 1.2
    assert "vae_decoder" in share["note"]
    sizes = [row for name, row in rows.items() if name.startswith("1 session, batch")]
    assert len(sizes) == 4 and all(row["value"] > 0 for row in sizes)
    batching = {name: row for name, row in rows.items() if name.startswith("dynamic batching")}
    assert len(batching) == 2  # 1 and 8 sessions
    small = batching["dynamic batching on against off, profile classic, 8 sessions"]
    assert small["details"]["mean_batch"] > 2.5, "requests of 2 frames were not batched"
    assert small["details"]["off"] > 0
    (overhead,) = [row for name, row in rows.items() if "bare OpenVINO" in name]
    assert 0.5 < overhead["value"] < 5
    assert (tmp_path / "cache" / "small" / "repo-full" / "manifest.json").is_file()


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BenchCache.checkpoint.__globals__["CHECKPOINT_BYTES"], "full", 10**18)
    with pytest.raises(SetupError, match="GB are needed"):
        BenchCache(tmp_path, lambda _: None).checkpoint("full")
    assert not list(tmp_path.iterdir())


def test_words_name_the_model_that_loses_most() -> None:
    parts = [Part("unet", 0.2, 100), Part("vae_decoder", 0.7, 600)]
    words = what_limits(parts, 1.0, rate=1.0)
    assert "most is lost in unet" not in words  # 0.1 s lost in each, 0.1 s outside: a tie
    words = what_limits([Part("unet", 0.5, 100), parts[1]], 1.25, rate=1.0)
    assert "most is lost in unet: 32% of the time" in words
    assert "unet 40% of the time at 20% of the rate" in words
    assert math.isclose(parts[0].share(1.0), 0.5)


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [(5.0, "least", True), (3.0, "least", False), (3.0, "most", True), (None, "least", None)],
)
def test_targets(value: float | None, bound: str, met: bool | None) -> None:
    assert Row("s", "n", value, "x", 4.0, bound).met is met  # type: ignore[arg-type]


def test_without_batching_only_the_configurations_differ(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "unet" / "1").mkdir(parents=True)
    (repository / "unet" / "1" / "model.onnx").write_bytes(b"weights")
    words = 'name: "unet"\nmax_batch_size: 8\ndynamic_batching {\n}\n'
    (repository / "unet" / "config.pbtxt").write_text(words)
    copy = unbatched(repository, tmp_path)
    assert (repository / "unet" / "config.pbtxt").read_text() == words
    assert (copy / "unet" / "config.pbtxt").read_text() == words.replace(
        "dynamic_batching {\n}\n", ""
    )
    assert (copy / "unet" / "1" / "model.onnx").read_bytes() == b"weights"
