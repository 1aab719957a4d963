"""docker-compose.yml: valid, complete, and its environment is what the service takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = json.loads(Path(__file__).with_name("compose_schema.json").read_text())


def test_the_file_is_valid() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("triton", "image", "nvcr.io/nvidia/tritonserver:latest"),
        ("orchestrator", "ports", ["8080:8080"]),
        ("orchestrator", "privileged", True),
        ("postgres", "deploy", {}),
    ],
)
def test_what_the_schema_refuses(service: str, key: str, value: object) -> None:
    broken = json.loads(json.dumps(COMPOSE))
    broken["services"][service][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_whatever_is_named_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in COMPOSE["secrets"], f"{name}: {source}"
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_a_profile_is_whole(profile: str) -> None:
    """One Triton under its name, all that others wait for, and no GPU where there is none."""
    running = {name: s for name, s in SERVICES.items() if profile in s["profiles"]}
    tritons = [
        name
        for name, service in running.items()
        if isinstance(service["networks"], dict)
        and "triton" in (service["networks"].get("inside") or {}).get("aliases", [])
    ]
    assert len(tritons) == 1
    for name, service in running.items():
        assert set(service.get("depends_on", {})) <= set(running), name
        devices = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
        assert bool(devices) == (profile == "gpu" and name in ("engines", "triton")), name


def test_long_running_services_are_watched() -> None:
    for name, service in SERVICES.items():
        if name not in ("engines", "bucket"):
            assert "healthcheck" in service, name


def test_the_stores_cannot_be_reached_from_outside() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("triton", "triton-cpu", "postgres", "store", "prometheus"):
        assert set(SERVICES[name]["networks"]) == {"inside"}, name
        assert "ports" not in SERVICES[name], name


def test_the_service_takes_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    fields = Settings.model_fields
    for key, value in SERVICES["orchestrator"]["environment"].items():
        field = key.removeprefix("MUSETALK_").lower()
        assert key.startswith("MUSETALK_") and field in fields, key
        default = value.partition(":-")[2].rstrip("}") if value.startswith("${") else value
        if default:
            monkeypatch.setenv(key, default)
    taken = Settings()
    assert taken.triton == "triton:8001"
    assert taken.port == 8080


def test_secrets_are_named_after_settings() -> None:
    for secret in SERVICES["orchestrator"]["secrets"]:
        if isinstance(secret, dict):
            assert secret["target"].removeprefix("musetalk_") in Settings.model_fields


def test_the_grace_period_holds_the_drain() -> None:
    service = SERVICES["orchestrator"]
    drain = int(service["environment"]["MUSETALK_DRAIN_SECONDS"])
    assert int(service["stop_grace_period"].rstrip("s")) >= drain + 10
