"""What the doctor says on machines that lack something."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from loadtests.ports import free_port
from orchestrator import doctor
from orchestrator.doctor import CHECKS, Finding, State, examine, run
from orchestrator.errors import SetupError
from orchestrator.settings import Settings


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    models = {"unet": {}, "vae_decoder": {}, "whisper_encoder": {}}
    for name in models:
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text("")
        (folder / name / "1" / "model.onnx").write_bytes(b"")
    manifest = {"decoder": "fast", "weights_id": "abc", "models": models, "missing": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def settings(tmp_path: Path, repository: Path) -> Settings:
    return Settings(
        _env_file=None, repository=repository, cache_dir=tmp_path / "cache", port=free_port()
    )


def change(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update=values)


def states(findings: list[Finding]) -> dict[str, State]:
    return {finding.name: finding.state for finding in findings}


def test_everything_needed_here_is_fine(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = states(examine(settings))
    assert set(findings) == {
        "GPU", "TensorRT", "CPU", "memory", "ffmpeg", "Triton", "models", "speech", "port", "disk",
    }  # fmt: skip
    assert "missing" not in findings.values()
    assert run(settings) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)


def test_one_missing_thing_fails_it(
    settings: Settings, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "manifest.json").unlink()
    assert run(settings) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert "musetalk export build" in line


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"decoder": "fast"}', "null"])
def test_a_manifest_that_cannot_be_read(settings: Settings, repository: Path, text: str) -> None:
    (repository / "manifest.json").write_text(text)
    assert doctor.check_repository(settings).state == "missing"


@pytest.mark.parametrize("file", ["config.pbtxt", "1/model.onnx"])
def test_a_deleted_model_file_is_named(settings: Settings, repository: Path, file: str) -> None:
    (repository / "unet" / file).unlink()
    finding = doctor.check_repository(settings)
    assert finding.state == "missing"
    assert f"unet/{file}" in finding.text


def test_a_repository_without_ears(settings: Settings, repository: Path) -> None:
    path = repository / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "missing": ["whisper_encoder"]}))
    assert "whisper_encoder" in doctor.check_repository(settings).text


class FakeTriton(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Ready, with these models."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models

    def ServerReady(self, request: object, context: object) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: object
    ) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=request.name in self._models)


@contextlib.contextmanager
def fake_triton(*models: str) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_GRPCInferenceServiceServicer_to_server(FakeTriton(models), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ipv4:127.0.0.1:{}", "dns:///localhost:{}"])
def test_an_external_triton_needs_no_repository(settings: Settings, address: str) -> None:
    with fake_triton(*doctor.NEEDED_MODELS, "face_parsing") as port:
        there = change(settings, triton=address.format(port), repository=Path("/nowhere"))
        assert doctor.check_triton(there).state == "ok"
        assert doctor.check_repository(there).state == "ok"


def test_an_external_triton_with_other_models(settings: Settings) -> None:
    with fake_triton("lipsync", "vae_encoder") as port:
        finding = doctor.check_triton(change(settings, triton=f"127.0.0.1:{port}"))
    assert finding.state == "missing"
    assert "whisper_encoder" in finding.text and "lipsync" not in finding.text


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:port"])
def test_an_external_triton_that_does_not_answer(settings: Settings, address: str) -> None:
    finding = doctor.check_triton(change(settings, triton=address))
    assert finding.state == "missing"
    assert address in finding.text


def test_an_external_server_that_is_no_triton(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert doctor.check_triton(change(settings, triton=address)).state == "missing"


def test_the_embedded_triton_says_what_it_lacks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise SetupError("no stub", remedy="reinstall")

    monkeypatch.setattr(doctor, "find_distribution", gone)
    assert doctor.check_triton(settings) == Finding("Triton", "missing", "no stub", "reinstall")


def test_a_taken_port(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        finding = doctor.check_port(change(settings, port=server.getsockname()[1]))
    assert finding.state == "missing"
    assert "MUSETALK_PORT" in finding.remedy


def test_a_taken_port_of_grpc(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        finding = doctor.check_port(change(settings, grpc_port=server.getsockname()[1]))
    assert finding.state == "missing"
    assert "MUSETALK_GRPC_PORT" in finding.remedy
    same = doctor.check_port(change(settings, grpc_port=settings.port))
    assert same.state == "missing"


def test_ports_of_ipv6(settings: Settings) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert doctor.check_port(change(settings, host="::1")).state == "ok"


def test_an_address_for_others_needs_keys(settings: Settings) -> None:
    finding = doctor.check_port(change(settings, host="0.0.0.0"))
    assert finding.state == "missing"
    assert "musetalk keys add" in finding.remedy


def test_speech_needs_a_voice_or_a_key(settings: Settings, tmp_path: Path) -> None:
    voiceless = change(settings, piper_voice=tmp_path / "none.onnx")
    assert doctor.check_speech(voiceless).state == "missing"
    remote = change(settings, tts="openai")
    assert "MUSETALK_TTS_API_KEY" in doctor.check_speech(remote).remedy
    local = change(remote, tts_base_url="http://127.0.0.1:9/v1")
    assert doctor.check_speech(local).state == "ok"


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_ffmpeg_without_x264(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = program(tmp_path, "ffmpeg", "echo ' A....D aac  AAC '")
    monkeypatch.setattr(doctor, "ffmpeg_path", lambda: str(fake))
    finding = doctor.check_ffmpeg(settings)
    assert finding.state == "missing"
    assert "libx264" in finding.text


def test_a_gpu_is_described_and_a_broken_driver_is_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA L4, 580.1, 23034 MiB, 8.9'")
    assert doctor.check_gpu(settings) == Finding("GPU", "ok", "NVIDIA L4, 580.1, 23034 MiB, 8.9")
    program(tmp_path, "nvidia-smi", "exit 9")
    finding = doctor.check_gpu(settings)
    assert finding.state == "note"
    assert "nvidia-smi failed" in finding.text


def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e12)
    assert doctor.check_disk(settings).state == "missing"
