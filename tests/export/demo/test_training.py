from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

pytest.importorskip("skia")

from export.checkpoint import Checkpoint
from export.demo import networks
from export.demo.frames import Speech, make_shard
from export.demo.latents import half_black
from export.demo.run import Run, pixels
from export.demo.train_unet import train_unet
from export.demo.train_vae import polish, train_vae
from export.demo.whisper_weights import read_ct2
from orchestrator.errors import CheckpointError


def some_speech():
    """Five frames of noise with mouths drawn by lot."""
    rng = np.random.default_rng(0)
    return Speech("x", False, rng.normal(size=(5, 50, 384)).astype(np.float16),
                  rng.random((5, 6), np.float32), [])  # fmt: skip


def test_ct2_tensors_are_read(tmp_path):
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    name = b"encoder/x\0"
    header = struct.pack("<I", 6) + struct.pack("<H", 5) + b"Spec\0" + struct.pack("<II", 3, 1)
    body = struct.pack("<H", len(name)) + name + struct.pack("<BII", 2, 2, 3)
    path = tmp_path / "model.bin"
    path.write_bytes(header + body + struct.pack("<BI", 0, values.nbytes) + values.tobytes())
    np.testing.assert_array_equal(read_ct2(path)["encoder/x"], values)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="CTranslate2"):
        read_ct2(path)


def test_mask_and_colour_order():
    crop = np.zeros((1, 256, 256, 3), np.uint8)
    crop[..., 0] = 255  # blue
    image = pixels(half_black(crop))
    assert image[0, :, 0, 0].tolist() == [-1, -1, 1]
    assert bool((image[:, :, 128:] == -1).all())


@pytest.mark.slow
def test_a_few_steps_resume_and_make_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("export.demo.frames.SHARD", 4)
    monkeypatch.setattr("export.demo.reader.STEPS", 3)
    speech = some_speech()
    monkeypatch.setattr("export.demo.pairs.load_speech", lambda *_a, **_k: [speech])
    run = Run(tmp_path, lambda _line: None, False)
    (tmp_path / "frames").mkdir()
    make_shard(tmp_path / "frames" / "00000.npz", [speech], 0)
    vae = train_vae(run, 0.01, batch=3)
    unet = train_unet(run, vae, 0.01, batch=2)
    first = torch.load(tmp_path / "unet.pt", weights_only=True)
    again = train_unet(run, vae, first["spent"] + 0.01, batch=2)
    second = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert second["step"] > first["step"]
    assert not torch.equal(unet.conv_in.weight, again.conv_in.weight)
    encoder = vae.encoder.layers[0].weight.clone()
    decoder = vae.decoder.layers[0].weight.clone()
    polish(run, vae, again, 0.01, batch=2)
    assert torch.equal(encoder, vae.encoder.layers[0].weight)
    assert not torch.equal(decoder, vae.decoder.layers[0].weight)
    monkeypatch.setattr(networks, "package_file", lambda: tmp_path)
    monkeypatch.setattr(networks, "read_ct2", lambda _path: {})
    monkeypatch.setattr(networks, "encoder_state", lambda _t: {"x": torch.zeros(1)})
    networks.save_checkpoint(tmp_path / "out", again, vae, 1.5)
    opened = Checkpoint.open(tmp_path / "out")
    assert opened.autoencoder().config["scaling_factor"] == 1.5
    assert opened.unet().config["cross_attention_dim"] == 384
