"""MuseTalk's own values: PyTorch modules, exported graphs and the running Triton give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from export.build import modules
from export.checkpoint import Checkpoint
from export.manifest import Manifest
from export.modules import positional_encoding
from orchestrator.inference import EmbeddedTriton, TritonClient

Array = np.ndarray[Any, Any]
Chain = dict[str, Array]


def assert_latents(found: Array, chain: Chain) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), chain["latents"], atol=2e-3, rtol=0)


def assert_pred(found: Array, chain: Chain) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), chain["pred"], atol=0.03, rtol=0)


def assert_faces(found: Array, chain: Chain) -> None:
    assert found.dtype == np.uint8 and found.shape == chain["faces"].shape
    error = np.abs(found.astype(int) - chain["faces"].astype(int))
    assert error.mean() <= 0.4
    assert (error > 3).mean() < 0.02


def test_positional_encoding(golden_chain: Chain) -> None:
    found = positional_encoding(*golden_chain["pe"].shape).numpy()
    np.testing.assert_allclose(found, golden_chain["pe"], atol=1e-6, rtol=0)


def test_pytorch_modules_give_the_golden_values(
    golden_checkpoint: Path, golden_chain: Chain
) -> None:
    parts = dict(modules(Checkpoint.open(golden_checkpoint), "full"))
    assert set(parts) == {"vae_encoder", "unet", "vae_decoder"}
    with torch.no_grad():
        latents = parts["vae_encoder"]()(torch.from_numpy(golden_chain["crops"]))
        assert_latents(latents.numpy(), golden_chain)
        audio = torch.from_numpy(golden_chain["audio"]).half()
        pred = parts["unet"]()(latents, audio)
        assert_pred(pred.numpy(), golden_chain)
        assert_faces(parts["vae_decoder"]()(pred).numpy(), golden_chain)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_exported_graphs_give_the_golden_values_at_any_batch(
    golden_repository: tuple[Path, Manifest, list[str]], golden_chain: Chain, batch: int
) -> None:
    def run(name: str, **inputs: Array) -> Array:
        path = golden_repository[0] / name / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, inputs)[0])

    chain = {key: value[:batch] for key, value in golden_chain.items() if key != "pe"}
    latents = run("vae_encoder", crop=chain["crops"])
    assert_latents(latents, chain)
    pred = run("unet", latents=latents, audio=chain["audio"].astype(np.float16))
    assert_pred(pred, chain)
    assert_faces(run("vae_decoder", pred=pred), chain)


@pytest.mark.triton
async def test_running_triton_gives_the_golden_values(
    golden_repository: tuple[Path, Manifest, list[str]], golden_chain: Chain
) -> None:
    audio = golden_chain["audio"].astype(np.float16)
    async with EmbeddedTriton(golden_repository[0]) as server:
        client = TritonClient(server.grpc_address, default_timeout=60)
        try:
            latents = await client.encode_crops(golden_chain["crops"])
            assert_latents(latents, golden_chain)
            answer = await client.infer("unet", {"latents": latents, "audio": audio})
            assert_pred(answer["pred"], golden_chain)
            assert_faces(await client.lipsync(latents, audio), golden_chain)
            assert not await client.has_model("whisper_encoder")
        finally:
            await client.close()
