"""The command line: exit status, one clear line, and the gate through a running Triton."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from export.cli import app
from export.manifest import Manifest, sha256
from export.sample import SAMPLE, load_sample
from orchestrator.errors import MediaError


def musetalk(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "export", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--target", "x"), ("--precision", "int4"), ("--decoder", "slow")]
)
def test_usage_errors_are_two(
    tmp_path: Path, golden_checkpoint: Path, option: str, value: str
) -> None:
    command = ["build", "--checkpoint", str(golden_checkpoint), "--repository"]
    answer = CliRunner().invoke(app, [*command, str(tmp_path / "r"), option, value])
    assert answer.exit_code == 2 and option in answer.output
    assert not list(tmp_path.iterdir())


def test_unknown_size_is_a_usage_error(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["init", "--size", "huge", str(tmp_path / "c")])
    assert answer.exit_code == 2 and "--size" in answer.output
    assert not list(tmp_path.iterdir())


def test_failures_are_one_line(tmp_path: Path, small_checkpoint: Path) -> None:
    path = small_checkpoint / "musetalkV15" / "unet.pth"
    path.write_bytes(path.read_bytes()[:100_000])
    repository = tmp_path / "repository"
    answer = musetalk("build", "--checkpoint", small_checkpoint, "--repository", repository)
    assert answer.returncode == 1
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1 and "unet.pth" in lines[0]
    assert not repository.exists() and not list(tmp_path.glob(".repository*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_build_leaves_nothing(
    tmp_path: Path, golden_checkpoint: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "export", "build", "--checkpoint"]
    command += [str(golden_checkpoint), "--repository", str(tmp_path / "repository")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 120
        while not list(tmp_path.glob(".repository.*")) and time.monotonic() < end:
            time.sleep(0.1)
        assert list(tmp_path.glob(".repository.*"))
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert b"Traceback" not in errors
    assert not list(tmp_path.iterdir())


async def test_sample_is_real(tmp_path: Path) -> None:
    sample = await load_sample(None, None)
    assert sample.crops.shape[1:] == (256, 256, 3) and sample.crops.dtype == np.uint8
    assert sample.crops.std() > 20
    assert sample.pcm.dtype == np.int16 and 16_000 < len(sample.pcm) < 30 * 16_000
    assert sample.audio.shape == (len(sample.crops), 50, 384)
    assert SAMPLE.stat().st_size < 1_500_000
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(MediaError, match=r"x\.png: not a readable picture"):
        await load_sample(tmp_path / "x.png", None)


def verify(checkpoint: Path, repository: Path) -> Result:
    command = ["verify", "--checkpoint", str(checkpoint), "--repository", str(repository)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


@pytest.mark.triton
@pytest.mark.slow
def test_verify_passes_for_what_was_built(small_repository: tuple[Path, Path]) -> None:
    checkpoint, repository = small_repository
    answer = verify(checkpoint, repository)
    assert answer.exit_code == 0, answer.output
    for name in (*Manifest.read(repository).models, "chain"):
        line = next(line for line in answer.stdout.splitlines() if line.split()[:1] == [name])
        assert "passed" in line


@pytest.mark.triton
@pytest.mark.slow
def test_verify_fails_for_other_weights(
    tmp_path: Path, golden_checkpoint: Path, golden_repository: tuple[Path, Manifest, list[str]]
) -> None:
    """A repository that serves something else than it says is caught, model by model."""
    checkpoint = Path(shutil.copytree(golden_checkpoint, tmp_path / "checkpoint"))
    repository = Path(shutil.copytree(golden_repository[0], tmp_path / "repository"))
    path = checkpoint / "unet.pth"
    weights = torch.load(path, weights_only=True)
    weights["conv_out.weight"] *= 1.05
    torch.save(weights, path)
    refused = verify(checkpoint, repository)
    assert "was built from another unet.pth" in str(refused.exception)
    manifest = repository / "manifest.json"
    old = sha256(golden_checkpoint / "unet.pth")
    manifest.write_text(manifest.read_text().replace(old, sha256(path)))
    answer = verify(checkpoint, repository)
    assert answer.exit_code == 1, answer.output
    verdicts = {
        line.split()[0]: "FAILED" in line for line in answer.stdout.splitlines() if line.strip()
    }
    judged = answer.stdout
    assert verdicts["unet"] and not verdicts["vae_encoder"] and not verdicts["vae_decoder"], judged
