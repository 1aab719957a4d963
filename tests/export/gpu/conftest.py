"""A machine with a GPU that is not there, and networks small enough to build in seconds."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from export import build as builds
from export import onnx_export
from export.gpu import build as gpu_builds
from export.gpu.build import GpuWriter, build_gpu, find_gpu
from export.manifest import Manifest
from export.model_config import Model


def _load(name: str) -> ModuleType:
    """A module beside the tests: there is no package to import it from."""
    spec = importlib.util.spec_from_file_location(
        f"gpu_{name}", Path(__file__).parent / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    return _load("fakes")


@pytest.fixture
def fake_trt(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """TensorRT, Polygraphy and a GPU for one test."""
    fake = fakes.FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake.tensorrt)
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", fake.trt)
    fakes.write_smi(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return fake


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 8, stride=8)

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        image = crop.float().permute(0, 3, 1, 2) / 127.5 - 1
        return self.layer(image).half()


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(8, 4, 1), nn.GroupNorm(2, 4)
        self.token = nn.Linear(384, 4)

    def forward(self, latents: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        tokens = self.token(audio.float()).softmax(1).mean(1)[:, :, None, None]
        return (self.norm(self.layer(latents.float())) + tokens).half()


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(4, 3, 8, stride=8)

    def forward(self, pred: torch.Tensor) -> torch.Tensor:
        image = self.layer(pred.float()) * 100 + 128
        return image.clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)


@pytest.fixture(scope="session")
def traces() -> dict[str, bytes]:
    """Graphs of the small networks, traced once: that is what takes the time."""
    return {}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, traces: dict[str, bytes]) -> None:
    """Three small networks with the real interfaces, whatever the checkpoint holds."""

    def trace(module: nn.Module, model: Model) -> ir.Model:
        if model.name not in traces:
            proto = ir.serde.serialize_model(onnx_export.trace(module, model))
            traces[model.name] = proto.SerializeToString()
        return ir.serde.deserialize_model(onnx.load_from_string(traces[model.name]))

    monkeypatch.setattr(gpu_builds, "trace", trace)

    def modules(*_: object) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
        for name, kind in {"vae_encoder": Encoder, "unet": Unet, "vae_decoder": Decoder}.items():

            def make(kind: type[nn.Module] = kind) -> nn.Module:
                torch.manual_seed(5)
                return kind().eval()

            yield name, make

    monkeypatch.setattr(builds, "modules", modules)


@pytest.fixture
def gpu_build(
    tiny: None, fake_trt: Any, golden_checkpoint: Path, tmp_path: Path
) -> Callable[..., tuple[Manifest, GpuWriter, list[str]]]:
    """Builds ``tmp_path/repository`` for the fake GPU; manifest, writer and progress lines."""

    def build(target: str = "tensorrt", **options: bool) -> tuple[Manifest, GpuWriter, list[str]]:
        lines: list[str] = []
        repository = tmp_path / "repository"
        writer = GpuWriter(find_gpu(target), repository, progress=lines.append, **options)
        return build_gpu(golden_checkpoint, repository, target, writer), writer, lines

    return build
