"""The rendered manifests: valid, within the rules, and every rule can fail."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.33"


def _policies() -> Any:
    spec = importlib.util.spec_from_file_location(
        "policies", Path(__file__).with_name("policies.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


P = _policies()
Object = dict[str, Any]
SCHEMAS = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "k8s/schemas").glob("*.json")
}


def find(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [i for i in objects if i["kind"] == kind and i["metadata"]["name"] == name]
    return found


def test_every_object_is_valid(objects: list[Object]) -> None:
    seen = set()
    for item in objects:
        custom = SCHEMAS.get(item["kind"].lower())
        if custom is not None:
            jsonschema.validate(item, custom)
        else:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        seen.add(item["kind"])
    assert {"Deployment", "StatefulSet", "NetworkPolicy", "ScaledObject", "PrometheusRule"} <= seen


@pytest.mark.parametrize("rule", P.RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[list[Object]], list[str]], objects: list[Object]) -> None:
    assert rule(objects) == []


GONE = object()
TRITON = "Deployment/triton/spec/template/spec"
ORCHESTRATOR = "StatefulSet/orchestrator/spec/template/spec"
SCALED = "ScaledObject/triton/spec"
DOWN = f"{SCALED}/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown"
# A rule, the place of the manifests that is changed, what is put there, the overlay that has it.
BREAKS: tuple[tuple[str, str, object, str | None], ...] = (
    ("limits", f"{TRITON}/containers/0/resources/limits/memory", GONE, None),
    ("gpu_limit", f"{TRITON}/containers/0/resources/limits/nvidia.com~gpu", GONE, "nvidia"),
    ("gpu_limit", f"{TRITON}/nodeSelector", GONE, "nvidia"),
    ("probes", f"{TRITON}/containers/0/startupProbe", GONE, None),
    ("probes", f"{ORCHESTRATOR}/containers/0/livenessProbe/httpGet/path", "/readyz", None),
    ("grace", f"{ORCHESTRATOR}/terminationGracePeriodSeconds", 60, None),
    ("grace", f"{TRITON}/containers/0/lifecycle", GONE, None),
    ("restricted", f"{TRITON}/securityContext/runAsNonRoot", False, None),
    (
        "restricted",
        f"{ORCHESTRATOR}/containers/0/securityContext/readOnlyRootFilesystem",
        GONE,
        None,
    ),
    ("restricted", "Job/migration/spec/template/spec/containers/0/securityContext", {}, None),
    ("no_tokens", "ServiceAccount/triton/automountServiceAccountToken", GONE, None),
    ("pinned", f"{TRITON}/containers/0/image", "registry.example.com/triton:latest", None),
    ("pinned", f"{ORCHESTRATOR}/containers/0/image", "registry.example.com/x", None),
    ("selectors", "Service/triton/spec/selector", {"app": "no"}, None),
    ("selectors", "PodMonitor/triton/spec/selector/matchLabels", {"app": "no"}, None),
    ("ports", "Service/orchestrator/spec/ports/0/targetPort", "web", None),
    ("ports", "PodMonitor/triton/spec/podMetricsEndpoints/0/port", "m", None),
    ("ports", f"{TRITON}/containers/0/readinessProbe/httpGet/port", "m", None),
    ("network", "NetworkPolicy/default-deny", GONE, None),
    ("network", "NetworkPolicy/triton/spec/ingress", [], None),
    ("volumes", f"{TRITON}/volumes/0", GONE, None),
    ("volumes", "PersistentVolumeClaim/models", GONE, "nvidia"),
    ("config_maps", "ConfigMap/triton", GONE, None),
    ("scaling", f"{SCALED}/minReplicaCount", 0, None),
    ("scaling", "ScaledObject/orchestrator/spec/fallback", GONE, None),
    ("scaling", f"{SCALED}/triggers/0/metadata/ignoreNullValues", GONE, None),
    ("scaling", f"{DOWN}/stabilizationWindowSeconds", 0, None),
    ("disruption", "PodDisruptionBudget/triton", GONE, None),
    ("headless", "Service/triton/spec/clusterIP", GONE, None),
    ("headless", "Service/triton/spec/ports/0/port", 9001, None),
    ("long_connections", "HTTPRoute/orchestrator/spec/rules/0/timeouts", GONE, "nvidia"),
    ("long_connections", "Ingress/orchestrator/metadata/annotations", GONE, "cpu"),
)


def change(objects: list[Object], where: str, value: object) -> None:
    """Put a value at ``Kind/name/key/...``, or take away what is there."""
    kind, name, *path = where.split("/")
    holder: Any = find(objects, kind, name)
    if not path:
        objects.remove(holder)
        return
    keys = [int(k) if k.isdigit() else k.replace("~", "/") for k in path]
    for key in keys[:-1]:
        holder = holder[key]
    if value is GONE:
        del holder[keys[-1]]
    else:
        holder[keys[-1]] = value


@pytest.mark.parametrize(
    ("rule", "where", "value", "only"),
    BREAKS,
    ids=[f"{rule}: {where}" for rule, where, _, _ in BREAKS],
)
def test_rule_finds_what_breaks_it(
    rule: str, where: str, value: object, only: str | None, overlay: str, objects: list[Object]
) -> None:
    if only not in (None, overlay):
        pytest.skip(f"only in {only}")
    change(objects, where, value)
    assert getattr(P, rule)(objects) != []


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, *_ in BREAKS} == {rule.__name__ for rule in P.RULES}


def test_a_wrong_custom_object_is_refused(objects: list[Object]) -> None:
    scaled = find(objects, "ScaledObject", "triton")
    scaled["spec"]["minReplicas"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate(scaled, SCHEMAS["scaledobject"])


def test_a_wrong_core_object_is_refused(objects: list[Object]) -> None:
    deployment = find(objects, "Deployment", "triton")
    deployment["spec"]["template"]["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="ressources"):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)
