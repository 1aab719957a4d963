"""Profiles, devices, keys, and the fake that stands for NVIDIA's packages."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.gpu.device import Device, detect
from export.gpu.engines import Toolkit, artefact_key, load_toolkit
from export.gpu.profiles import BatchRange, batch_ranges
from export.model_config import MODELS
from orchestrator.errors import SetupError


@given(st.integers(1, 100))
def test_every_size_has_one_profile(largest: int) -> None:
    ranges = batch_ranges(largest)
    sizes = [s for one in ranges for s in range(one.smallest, one.largest + 1)]
    assert sizes == list(range(1, largest + 1))
    assert all(one.best in one.sizes() and one.smallest <= one.best for one in ranges)


def test_profiles_of_the_models() -> None:
    assert [str(one) for one in batch_ranges(MODELS["unet"].max_batch)] == ["1", "2-4", "5-8"]
    assert [str(one) for one in batch_ranges(MODELS["face_parsing"].max_batch)] == ["1", "2-4"]
    with pytest.raises(ValueError, match="batch of 0"):
        batch_ranges(0)


def test_the_key_changes_with_whatever_changes_the_engine() -> None:
    toolkit, device = Toolkit("10.14.1", None), Device("L4", "8.9", 23034, "580")
    ranges = batch_ranges(8)
    first = artefact_key(toolkit, device, "abc", ranges)
    assert first == artefact_key(
        toolkit, Device("L4 of another make", "8.9", 1, "575"), "abc", ranges
    )
    others = [
        artefact_key(Toolkit("11.0.0", None), device, "abc", ranges),
        artefact_key(toolkit, Device("A10", "8.6", 23034, "580"), "abc", ranges),
        artefact_key(toolkit, Device("L4", "8.9", 23034, "580", "1g.5gb"), "abc", ranges),
        artefact_key(toolkit, device, "abd", ranges),
        artefact_key(toolkit, device, "abc", (BatchRange(1, 8, 8),)),
    ]
    assert len({first, *others}) == 6


def test_the_gpu_and_its_slice(fake_trt: Any, fakes: ModuleType, tmp_path: Path) -> None:
    assert detect() == Device("NVIDIA L4", "8.9", 23034, "580.65.06")
    listing = "GPU 0: NVIDIA H100 (UUID: GPU-1)\n  MIG 1g.10gb     Device  0: (UUID: MIG-2)\n"
    fakes.write_smi(tmp_path / "bin", "NVIDIA H100, 9.0, 81559, 580.65.06\n", listing)
    assert detect().mig == "1g.10gb"
    two = "NVIDIA L4, 8.9, 23034, 580\nNVIDIA L4, 8.9, 23034, 580\n"
    fakes.write_smi(tmp_path / "bin", two)
    assert detect().name == "NVIDIA L4"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("NVIDIA L4, 8.9, 23034, 580\nNVIDIA A10, 8.6, 23028, 580\n", 0, "NVIDIA A10, NVIDIA L4"),
        ("Failed to initialize NVML\n", 9, "nvidia-smi failed: Failed to initialize NVML"),
        ("[N/A]\n", 0, "nvidia-smi says '.N/A.'"),
    ],
)
def test_no_usable_gpu(
    fake_trt: Any, fakes: ModuleType, tmp_path: Path, query: str, status: int, message: str
) -> None:
    fakes.write_smi(tmp_path / "bin", query, status=status)
    with pytest.raises(SetupError, match=message):
        detect()


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no GPU here"):
        detect()


def test_old_or_missing_tensorrt(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_toolkit().version == fake_trt.version
    fake_trt.tensorrt.__version__ = "8.6.1"
    with pytest.raises(SetupError, match=r"TensorRT 8\.6\.1 is too old"):
        load_toolkit()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SetupError, match="needs TensorRT and Polygraphy"):
        load_toolkit()


def test_the_fake_is_called_as_polygraphy_is(fakes: ModuleType) -> None:
    """Every parameter that the fake takes, the real one takes by the same name."""
    trt = pytest.importorskip("polygraphy.backend.trt")
    fake = fakes.FakeTensorRT().trt
    for name in vars(fake):
        real, ours = getattr(trt, name), getattr(fake, name)
        takes = set(inspect.signature(real).parameters)
        if name == "CreateConfig":  # passes the rest on to its base
            takes |= set(inspect.signature(real.__mro__[1]).parameters)
        if name in ("Profile",):
            real, ours = real.add, ours.add
            takes = set(inspect.signature(real).parameters)
        if "args" in takes and "kwargs" in takes:  # made of the class by Polygraphy
            kinds = {
                "engine_bytes_from_network": "EngineBytesFromNetwork",
                "engine_from_bytes": "EngineFromBytes",
            }
            takes = set(inspect.signature(getattr(trt, kinds[name])).parameters)
        assert set(inspect.signature(ours).parameters) <= takes, name
    assert "feed_dict" in inspect.signature(trt.TrtRunner.infer).parameters
