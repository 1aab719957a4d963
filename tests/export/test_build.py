"""Repositories: what is in them, other networks, and failures that leave nothing behind."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file

from export import build as build_module
from export.build import build, modules
from export.checkpoint import Checkpoint
from export.manifest import Manifest
from export.model_config import MODELS, from_text
from export.onnx_export import export
from orchestrator.errors import CheckpointError, RepositoryError, SetupError, UsageError

FP16, FP32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def run(repository: Path, name: str, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, inputs)[0])


def reference(
    checkpoint: Path, name: str, *inputs: np.ndarray, decoder: str = "full"
) -> np.ndarray:
    module = dict(modules(Checkpoint.open(checkpoint), decoder))[name]()
    with torch.no_grad():
        return np.asarray(module(*(torch.from_numpy(array) for array in inputs)).numpy())


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    difference = found.astype(np.float64) - wanted.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(wanted.astype(np.float64)))


@pytest.fixture(scope="module")
def noise() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        "crop": random.integers(0, 256, (3, 256, 256, 3), np.uint8),
        "latents": random.standard_normal((3, 8, 32, 32)).astype(np.float16),
        "audio": random.standard_normal((3, 50, 384)).astype(np.float16),
        "pred": random.standard_normal((3, 4, 32, 32)).astype(np.float16),
        "mel": random.standard_normal((1, 80, 3000)).astype(np.float32),
        "image": random.integers(0, 256, (2, 512, 512, 3), np.uint8),
    }


@pytest.mark.slow
def test_golden_repository(golden_repository: tuple[Path, Manifest, list[str]]) -> None:
    repository, manifest, lines = golden_repository
    assert Manifest.read(repository) == manifest
    assert set(manifest.models) == {"vae_encoder", "unet", "vae_decoder"}
    assert manifest.missing == ["whisper_encoder", "face_parsing"]
    assert any("whisper_encoder: left out" in line for line in lines)
    assert {folder.name for folder in repository.iterdir()} == {
        *manifest.models,
        "lipsync",
        "manifest.json",
    }
    assert set(manifest.sources) == {
        "musetalk.json",
        "unet.pth",
        "sd-vae/config.json",
        *(f"sd-vae/{p.name}" for p in _vae_weights()),
    }
    for name, entry in manifest.models.items():
        assert entry.parameters > 0 and entry.gflop > 0
        config = from_text((repository / name / "config.pbtxt").read_text())
        assert config.parameters["precision"].string_value == "fp32"
        onnx.checker.check_model(repository / name / "1" / "model.onnx")
    assert not list(repository.parent.glob(".*"))


def _vae_weights() -> list[Path]:
    folder = Path(__file__).parent.parent / "golden" / "checkpoint" / "sd-vae"
    return [path for path in folder.iterdir() if path.name != "config.json"]


def test_half_weights_are_stored_as_halves(
    golden_repository: tuple[Path, Manifest, list[str]], golden_checkpoint: Path
) -> None:
    graph = onnx.load(golden_repository[0] / "unet" / "1" / "model.onnx").graph
    sizes = {FP16: 0, FP32: 0}
    for tensor in graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    assert sizes[FP16] > 20 * sizes[FP32]
    stored = (golden_repository[0] / "unet" / "1" / "model.onnx").stat().st_size
    assert stored < 1.25 * (golden_checkpoint / "unet.pth").stat().st_size


def test_small_repository_of_the_official_layout(
    small_repository: tuple[Path, Path], noise: dict[str, np.ndarray]
) -> None:
    checkpoint, repository = small_repository
    manifest = Manifest.read(repository)
    assert set(manifest.models) == set(MODELS) and manifest.missing == []
    assert manifest.decoder == "fast"
    assert {"taesd/config.json", "whisper/model.safetensors"} <= set(manifest.sources)
    for name, inputs in {
        "whisper_encoder": ("mel",),
        "vae_encoder": ("crop",),
        "unet": ("latents", "audio"),
        "vae_decoder": ("pred",),
    }.items():
        arrays = {key: noise[key] for key in inputs}
        wanted = reference(checkpoint, name, *arrays.values(), decoder="fast")
        found = run(repository, name, **arrays)
        spec = MODELS[name].outputs[0]
        assert found.dtype == {"TYPE_FP16": np.float16, "TYPE_UINT8": np.uint8}[spec.dtype]
        assert all(own in (dim, -1) for dim, own in zip(found.shape[1:], spec.dims, strict=True))
        assert relative(found, wanted) < 1e-3


def test_whisper_states_are_those_of_transformers(
    small_repository: tuple[Path, Path], noise: dict[str, np.ndarray]
) -> None:
    encoder = Checkpoint.open(small_repository[0]).whisper_encoder()
    with torch.no_grad():
        states = encoder(torch.from_numpy(noise["mel"]), output_hidden_states=True).hidden_states
    wanted = torch.stack(states, dim=2).numpy()
    assert wanted.shape == (1, 1500, 5, 384)
    found = run(small_repository[1], "whisper_encoder", mel=noise["mel"])
    assert relative(found, wanted) < 1e-3


def test_full_precision_unet_of_another_shape(
    tmp_path: Path, small_checkpoint: Path, noise: dict[str, np.ndarray]
) -> None:
    torch.manual_seed(11)
    unet = UNet2DConditionModel(
        in_channels=8,
        out_channels=4,
        cross_attention_dim=384,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 48),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
    )
    folder = small_checkpoint / "musetalkV15"
    (folder / "musetalk.json").write_text(json.dumps(dict(unet.config), default=str))
    (folder / "unet.pth").unlink()
    save_file(unet.state_dict(), folder / "unet.safetensors")
    module = dict(modules(Checkpoint.open(small_checkpoint), "full"))["unet"]()
    version = tmp_path / "unet" / "1"
    version.mkdir(parents=True)
    export(module, MODELS["unet"], version)
    arrays = {key: noise[key] for key in ("latents", "audio")}
    found = run(tmp_path, "unet", **arrays)
    assert relative(found, reference(small_checkpoint, "unet", *arrays.values())) < 1e-3
    graph = onnx.load(version / "model.onnx").graph
    stored = {tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) > 4096}
    assert stored == {FP32}


def test_face_parsing(small_repository: tuple[Path, Path], noise: dict[str, np.ndarray]) -> None:
    checkpoint, repository = small_repository
    labels = run(repository, "face_parsing", image=noise["image"])
    wanted = reference(checkpoint, "face_parsing", noise["image"])
    assert labels.dtype == np.uint8 and labels.max() < 19
    assert len(np.unique(wanted)) > 1
    assert (labels == wanted).mean() > 0.99


def test_autoencoder_tiny_scales_by_its_own_factor(small_checkpoint: Path) -> None:
    shutil.rmtree(small_checkpoint / "sd-vae")
    shutil.copytree(small_checkpoint / "taesd", small_checkpoint / "sd-vae")
    vae = Checkpoint.open(small_checkpoint).autoencoder()
    assert isinstance(vae, AutoencoderTiny)
    crop = np.random.default_rng(3).integers(0, 256, (2, 256, 256, 3), np.uint8)
    latents = reference(small_checkpoint, "vae_encoder", crop)
    image = torch.from_numpy(crop[..., ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        wanted = vae.encode(image).latents
        np.testing.assert_allclose(latents[:, 4:], wanted.numpy(), atol=5e-3)
        image[:, :, 128:] = -1
        np.testing.assert_allclose(latents[:, :4], vae.encode(image).latents.numpy(), atol=5e-3)


def test_network_of_another_geometry_is_refused(tmp_path: Path, small_checkpoint: Path) -> None:
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    ).save_pretrained(small_checkpoint / "sd-vae")
    with pytest.raises(CheckpointError, match=r"vae_encoder: .* gives \[8, 64, 64\]"):
        build(small_checkpoint, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def fast_writer(monkeypatch: pytest.MonkeyPatch, fail: Exception | None = None) -> None:
    """Replace the slow parts: an empty file for each model, or a failure in the last one."""

    def write(folder: Path, name: str, *_: object) -> build_module.ModelEntry:
        if fail is not None and name == "vae_decoder":
            raise fail
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(b"")
        return build_module.ModelEntry("0", 1, 1.0)

    monkeypatch.setattr(build_module, "_write_model", write)
    monkeypatch.setattr(build_module, "rehearse", lambda *_: 1.0)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "x/y"), "x/y: Permission denied"),
    ],
)
def test_failed_build_leaves_the_old_repository(
    tmp_path: Path,
    golden_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: OSError,
    message: str,
) -> None:
    repository = tmp_path / "repository"
    fast_writer(monkeypatch)
    first = build(golden_checkpoint, repository)
    fast_writer(monkeypatch, failure)
    with pytest.raises(SetupError, match=message):
        build(golden_checkpoint, repository)
    assert Manifest.read(repository) == first
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_interrupt_leaves_nothing(
    tmp_path: Path, golden_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "_write_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(golden_checkpoint, tmp_path / "repository")
    assert not list(tmp_path.iterdir())


def test_a_new_build_replaces_the_old_one(
    tmp_path: Path, golden_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "deep" / "repository"
    fast_writer(monkeypatch)
    build(golden_checkpoint, repository)
    (repository / "stray").touch()
    assert build(golden_checkpoint, repository, precision="bf16").precision == "bf16"
    assert Manifest.read(repository).precision == "bf16"
    assert not (repository / "stray").exists()
    assert [path.name for path in repository.parent.iterdir()] == ["repository"]


def test_other_folders_are_left_alone(tmp_path: Path, golden_checkpoint: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RepositoryError, match="no model repository"):
        build(golden_checkpoint, tmp_path)
    with pytest.raises(RepositoryError, match="no model repository"):
        build(golden_checkpoint, tmp_path / "holiday.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "tpu"}, UsageError, "tpu is none of cpu"),
        ({"precision": "int4"}, UsageError, "int4 is none of"),
        ({"decoder": "slow"}, UsageError, "slow is none of"),
        ({"decoder": "fast"}, CheckpointError, "taesd/ is missing"),
    ],
)
def test_impossible_builds(
    tmp_path: Path,
    golden_checkpoint: Path,
    options: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        build(golden_checkpoint, tmp_path / "repository", **options)
    assert not list(tmp_path.iterdir())
