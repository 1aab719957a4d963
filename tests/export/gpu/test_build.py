"""Target tensorrt with a fake of NVIDIA's packages: engines, gate, publishing, failures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from export.cli import app
from export.gpu.build import Gpu, GpuWriter, fits, timing_cache
from export.gpu.device import Device
from export.gpu.engines import Toolkit
from export.gpu.gate import judge
from export.manifest import Manifest, sha256
from export.model_config import MODELS, from_text
from orchestrator.errors import EngineError, SetupError

Build = Callable[..., tuple[Manifest, GpuWriter, list[str]]]
RANGES = [[1, 1, 1], [2, 4, 4], [5, 8, 8]]


def test_a_repository_of_engines(gpu_build: Build, fake_trt: Any, tmp_path: Path) -> None:
    manifest, writer, _ = gpu_build()
    repository = tmp_path / "repository"
    assert Manifest.read(repository) == manifest
    assert manifest.target == "tensorrt" and manifest.precision == "fp16"
    assert set(manifest.models) == {"vae_encoder", "unet", "vae_decoder"}
    for name, entry in manifest.models.items():
        assert entry.served_by == "tensorrt_plan" and entry.engine is not None
        assert entry.engine.profiles == RANGES
        assert (entry.engine.sm, entry.engine.tensorrt) == ("8.9", fake_trt.version)
        files = {path.name for path in (repository / name / "1").iterdir()}
        assert files == {"model.plan"}
        assert sha256(repository / name / "1" / "model.plan") == entry.engine.sha256
        config = from_text((repository / name / "config.pbtxt").read_text())
        assert list(config.instance_group[0].profile) == ["0", "1", "2"]
        assert config.parameters["engine_key"].string_value == entry.engine.key
        for warmup in config.model_warmup:
            for tensor in MODELS[name].inputs:
                file = repository / name / "warmup" / warmup.inputs[tensor.name].input_data_file
                size = {"TYPE_FP16": 2, "TYPE_UINT8": 1}[tensor.dtype]
                assert file.stat().st_size == size * int(np.prod(tensor.dims))
                assert any(file.read_bytes())
    assert fake_trt.builds == [[tuple(one) for one in RANGES]] * 3
    assert all(config.tf32 for config in fake_trt.configs)
    tried = {(c.model, c.profile, c.batch) for c in writer.checks if c.profile >= 0}
    sizes = {(0, 1), (1, 2), (1, 4), (2, 5), (2, 8)}
    assert tried == {(name, *one) for name in manifest.models for one in sizes}
    assert all(check.passed for check in writer.checks)
    caches = list((tmp_path / "repository.timing").iterdir())
    assert [path.name for path in caches] == [f"{fake_trt.version}-sm8.9.cache"]
    # Cold for the first engine, warm for the others.
    assert [bool(config.load_timing_cache) for config in fake_trt.configs] == [False, True, True]


def test_engines_that_still_fit_are_kept(
    gpu_build: Build, fake_trt: Any, fakes: ModuleType, tmp_path: Path
) -> None:
    first, _, _ = gpu_build()
    again, writer, lines = gpu_build()
    assert len(fake_trt.builds) == 3 and again.models == first.models
    assert any("is there already" in line for line in lines)
    assert [check for check in writer.checks if check.profile >= 0], "kept ones pass the gate too"
    fakes.write_smi(tmp_path / "bin", "NVIDIA A10, 8.6, 23028, 580\n")
    gpu_build()
    assert len(fake_trt.builds) == 6
    (tmp_path / "repository" / "unet" / "1" / "model.plan").write_bytes(b"rotten")
    gpu_build()
    assert len(fake_trt.builds) == 7


def grey(first: str, profile: int, array: np.ndarray) -> np.ndarray:
    return np.full_like(array, 128) if first == "pred" and profile == 2 else array


def infinite(first: str, profile: int, array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.inf) if first == "latents" else array


def wild(first: str, profile: int, array: np.ndarray) -> np.ndarray:
    if first == "latents" and profile == 1:
        array = array.copy()
        array[0, 0, 0, 0] += 2
    return array


def shifted(first: str, profile: int, array: np.ndarray) -> np.ndarray:
    return array + np.float16(0.02) if first == "latents" else array


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (grey, r"vae_decoder: profile 2 at batch 5: flat"),
        (infinite, r"unet: profile 0 at batch 1: not a number"),
        (wild, r"unet: profile 1 at batch 2: maximum over 0\.5"),
        (shifted, r"unet: profile 0 at batch 1: mean error over 0\.01"),
    ],
)
def test_a_failing_engine_stops_the_build(
    gpu_build: Build, fake_trt: Any, tmp_path: Path, spoil: Any, message: str
) -> None:
    fake_trt.spoil = spoil
    with pytest.raises(EngineError, match=message):
        gpu_build()
    assert not (tmp_path / "repository").exists()
    assert not list(tmp_path.glob(".repository*"))


def test_a_failing_build_leaves_the_old_repository(
    gpu_build: Build, fake_trt: Any, tmp_path: Path
) -> None:
    first, _, _ = gpu_build()
    shutil.rmtree(tmp_path / "repository.timing")
    (tmp_path / "repository" / "unet" / "1" / "model.plan").write_bytes(b"rotten")
    fake_trt.refuse = "latents"
    with pytest.raises(EngineError, match="unet: TensorRT built no engine: Invalid Engine"):
        gpu_build()
    assert Manifest.read(tmp_path / "repository") == first


def test_onnxruntime_only_where_the_operator_asked(
    gpu_build: Build, fake_trt: Any, tmp_path: Path
) -> None:
    fake_trt.spoil = wild
    manifest, _, lines = gpu_build(fall_back=True)
    served = {name: entry.served_by for name, entry in manifest.models.items()}
    assert served == {
        "vae_encoder": "tensorrt_plan",
        "unet": "onnxruntime_onnx",
        "vae_decoder": "tensorrt_plan",
    }
    assert any("unet" in line and "ONNX Runtime serves it" in line for line in lines)
    assert manifest.models["unet"].engine is None
    folder = tmp_path / "repository" / "unet"
    assert {path.name for path in (folder / "1").iterdir()} == {"model.onnx"}
    assert from_text((folder / "config.pbtxt").read_text()).platform == "onnxruntime_onnx"


def test_onnxruntime_needs_no_gpu(
    gpu_build: Build, fake_trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    manifest, _, _ = gpu_build("onnxruntime")
    assert {entry.served_by for entry in manifest.models.values()} == {"onnxruntime_onnx"}
    assert fits(manifest, None) and not fake_trt.builds


def test_engines_fit_one_tensorrt_one_gpu_and_one_slice(gpu_build: Build) -> None:
    manifest, _, _ = gpu_build()
    device = Device("NVIDIA L4", "8.9", 23034, "580")

    def here(version: str = "10.14.1.48", sm: str = "8.9", mig: str = "") -> Gpu:
        return Gpu(Toolkit(version, None), Device(device.name, sm, 1, "", mig))

    assert fits(manifest, here())
    for other in (here("11.0.0.1"), here(sm="8.6"), here(mig="1g.5gb")):
        assert not fits(manifest, other)
    assert not fits(manifest, None)
    assert timing_cache(Path("/m/r"), here(mig="1g.5gb")).name == "10.14.1.48-sm8.9-1g.5gb.cache"


def test_a_wrong_shape_is_no_agreement() -> None:
    face = np.zeros((2, 256, 256, 3), np.uint8)
    assert "another shape" in judge(MODELS["vae_decoder"], face, face[:1], profile=0).verdict
    floats = face.astype(np.float32)
    assert "another shape or type" in judge(MODELS["vae_decoder"], face, floats, profile=0).verdict


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


def test_if_needed(
    tiny: None, fake_trt: Any, fakes: ModuleType, golden_checkpoint: Path, tmp_path: Path
) -> None:
    options = ["--checkpoint", golden_checkpoint, "--repository", tmp_path / "repository"]
    options += ["--target", "tensorrt", "--if-needed"]
    answer = run(*options)
    assert answer.exit_code == 0, answer.output
    assert "ready to serve" in answer.output and "mean error" in answer.output
    assert "up to date" in run(*options).output and len(fake_trt.builds) == 3
    fakes.write_smi(tmp_path / "bin", "NVIDIA A10, 8.6, 23028, 580\n")
    assert "up to date" not in run(*options).output and len(fake_trt.builds) == 6
    assert "up to date" not in run(*options[:-3], "onnxruntime", "--if-needed").output


def test_a_failure_prints_its_table(
    tiny: None, fake_trt: Any, golden_checkpoint: Path, tmp_path: Path
) -> None:
    fake_trt.spoil = grey
    answer = run(
        "--checkpoint", golden_checkpoint, "--repository", tmp_path / "r", "--target", "tensorrt"
    )
    assert isinstance(answer.exception, EngineError)
    rows = [line.split() for line in answer.output.splitlines() if line.startswith("vae_decoder ")]
    assert [row[-1] for row in rows if row[1].isdigit()] == ["passed"] * 3 + ["flat"] * 2


def test_without_tensorrt_one_line_before_anything_slow(
    golden_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    answer = run(
        "--checkpoint", golden_checkpoint, "--repository", tmp_path / "r", "--target", "tensorrt"
    )
    assert isinstance(answer.exception, SetupError) and answer.output == ""
    assert "needs TensorRT and Polygraphy" in str(answer.exception)
    assert not list(tmp_path.iterdir())


def test_plan_needs_no_gpu(golden_checkpoint: Path) -> None:
    answer = run("--checkpoint", golden_checkpoint, "--target", "tensorrt", "--plan")
    assert answer.exit_code == 0, answer.output
    assert "latents FP16 [8, 32, 32]" in answer.output
    assert answer.output.count("1 (tuned for 1), 2-4 (tuned for 4), 5-8 (tuned for 8)") == 3
    assert "weights together" in answer.output
