"""What must hold of the manifests, as rules: each returns what breaks it, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]
Rule = Callable[[list[Object]], list[str]]

NAME = "app.kubernetes.io/name"
EXIT_MARGIN = 10
"""Seconds of the grace period that nothing is planned for."""


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def name(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def workloads(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Workloads and the specs of their pods."""
    for item in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        yield item, item["spec"]["template"]["spec"]


def servers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    for item, pod in workloads(objects):
        if item["kind"] != "Job":
            yield item, pod


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """What is known of a container's environment without its secrets."""
    maps = {item["metadata"]["name"]: item["data"] for item in of_kind(objects, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps.get(source.get("configMapRef", {}).get("name", ""), {})
    return found | {e["name"]: e["value"] for e in container.get("env", []) if "value" in e}


def limits(objects: list[Object]) -> list[str]:
    return [
        f"{name(item)} {container['name']}: no {part} {kind}"
        for item, pod in workloads(objects)
        for container in containers(pod)
        for part in ("cpu", "memory")
        for kind in ("requests", "limits")
        if part not in container.get("resources", {}).get(kind, {})
    ]


def gpu_limit(objects: list[Object]) -> list[str]:
    """Whoever builds or serves engines has a GPU, on a chosen kind of node."""
    bad = []
    for item, pod in workloads(objects):
        engines = [c for c in containers(pod) if "tensorrt" in c.get("command", [])]
        if not engines:
            continue
        for container in containers(pod):
            wanted = container.get("resources", {}).get("limits", {})
            if not any(key.startswith("nvidia.com/") for key in wanted):
                bad.append(f"{name(item)} {container['name']}: no GPU")
        if not pod.get("nodeSelector") or not pod.get("tolerations"):
            bad.append(f"{name(item)}: no node is chosen")
    return bad


def probes(objects: list[Object]) -> list[str]:
    bad = []
    for item, pod in servers(objects):
        for container in pod["containers"]:
            paths = {}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    bad.append(f"{name(item)}: no {probe}")
                else:
                    paths[probe] = container[probe]["httpGet"]["path"]
            if paths.get("livenessProbe") == paths.get("readinessProbe"):
                bad.append(f"{name(item)}: a pod that is only busy would be killed")
    return bad


def grace(objects: list[Object]) -> list[str]:
    """The grace period holds preStop, the drain, and something to spare."""
    bad = []
    drains = {"triton": "MUSETALK_TRITON_EXIT_TIMEOUT", "orchestrator": "MUSETALK_DRAIN_SECONDS"}
    for item, pod in servers(objects):
        (container,) = pod["containers"]
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if not sleep or sleep[0] != "sleep":
            bad.append(f"{name(item)}: no preStop sleep")
            continue
        variable = drains[item["metadata"]["name"]]
        drain = environment(objects, container).get(variable)
        if drain is None:
            bad.append(f"{name(item)}: {variable} is not set")
        elif pod["terminationGracePeriodSeconds"] < int(sleep[1]) + int(drain) + EXIT_MARGIN:
            bad.append(f"{name(item)}: killed before it has drained")
    return bad


def restricted(objects: list[Object]) -> list[str]:
    """Pod Security Standard "restricted", and a root file system that is read only."""
    bad = []
    for item, pod in workloads(objects):
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            bad.append(f"{name(item)}: may run as root")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            bad.append(f"{name(item)}: no seccomp profile")
        for container in containers(pod):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                bad.append(f"{name(item)} {container['name']}: may gain privileges")
            if not own.get("readOnlyRootFilesystem"):
                bad.append(f"{name(item)} {container['name']}: writable root file system")
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                bad.append(f"{name(item)} {container['name']}: keeps capabilities")
    for item in of_kind(objects, "Namespace"):
        if item["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            bad.append(f"{name(item)}: does not enforce restricted pods")
    return bad


def no_tokens(objects: list[Object]) -> list[str]:
    bad = [
        f"{name(item)}: mounts a token"
        for item in of_kind(objects, "ServiceAccount")
        if item.get("automountServiceAccountToken") is not False
    ]
    accounts = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    for item, pod in workloads(objects):
        if pod.get("automountServiceAccountToken") is not False:
            bad.append(f"{name(item)}: mounts a token")
        if pod.get("serviceAccountName") not in accounts:
            bad.append(f"{name(item)}: has no account of its own")
    return bad


def pinned(objects: list[Object]) -> list[str]:
    return [
        f"{name(item)} {container['name']}: {container['image']} is not pinned"
        for item, pod in workloads(objects)
        for container in containers(pod)
        if not re.search(r":\d+\.\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"])
    ]


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def selectors(objects: list[Object]) -> list[str]:
    """Every selector finds pods, and workloads select their own."""
    labels = {name(i): i["spec"]["template"]["metadata"]["labels"] for i, _ in workloads(objects)}
    bad = []
    for item in of_kind(objects, "Deployment", "StatefulSet"):
        if not _matches(item["spec"]["selector"]["matchLabels"], labels[name(item)]):
            bad.append(f"{name(item)}: does not select its own pods")
    for item in objects:
        spec = item.get("spec", {})
        wanted = {
            "Service": lambda s: s.get("selector"),
            "PodDisruptionBudget": lambda s: s["selector"].get("matchLabels"),
            "PodMonitor": lambda s: s["selector"].get("matchLabels"),
            "NetworkPolicy": lambda s: s["podSelector"].get("matchLabels"),
        }.get(item["kind"], lambda s: None)(spec)
        if wanted and not any(_matches(wanted, found) for found in labels.values()):
            bad.append(f"{name(item)}: selects no pod")
    return bad


def ports(objects: list[Object]) -> list[str]:
    """Named ports exist where Services, probes, monitors and routes expect them."""
    bad = []
    pods = [
        (item["spec"]["template"]["metadata"]["labels"], {
            port["name"]: port["containerPort"]
            for container in pod["containers"]
            for port in container.get("ports", [])
        })
        for item, pod in workloads(objects)
    ]  # fmt: skip

    def named(selector: dict[str, str]) -> dict[str, int]:
        return {
            k: v for labels, found in pods if _matches(selector, labels) for k, v in found.items()
        }

    services = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "Service")}
    for service, spec in services.items():
        for port in spec["ports"]:
            if port["targetPort"] not in named(spec["selector"]):
                bad.append(f"Service/{service}: port {port['targetPort']} is nowhere")
    for item in of_kind(objects, "PodMonitor"):
        found = named(item["spec"]["selector"]["matchLabels"])
        for endpoint in item["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in found:
                bad.append(f"{name(item)}: port {endpoint['port']} is nowhere")
    for item, pod in servers(objects):
        for container in pod["containers"]:
            own = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in own:
                    bad.append(f"{name(item)}: {probe} asks port {port}")
    backends = [
        (item, b["name"], b["port"])
        for item in of_kind(objects, "HTTPRoute")
        for rule in item["spec"]["rules"]
        for b in rule["backendRefs"]
    ] + [
        (item, path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"])
        for item in of_kind(objects, "Ingress")
        for rule in item["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    for item, service, port in backends:
        known = services.get(service, {"ports": []})["ports"]
        if port not in {p["port"] for p in known} | {p["name"] for p in known}:
            bad.append(f"{name(item)}: {service}:{port} is no service")
    return bad


def network(objects: list[Object]) -> list[str]:
    """Everything is denied by default, and each server lets its own ports in."""
    policies = of_kind(objects, "NetworkPolicy")
    bad = []
    if not any(
        p["spec"]["podSelector"] == {}
        and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not p["spec"].get("ingress")
        and not p["spec"].get("egress")
        for p in policies
    ):
        bad.append("nothing denies by default")
    for item, pod in servers(objects):
        labels = item["spec"]["template"]["metadata"]["labels"]
        allowed = {
            port["port"]
            for p in policies
            if _matches(p["spec"]["podSelector"].get("matchLabels", {}), labels)
            for rule in p["spec"].get("ingress", [])
            for port in rule["ports"]
        }
        services = [
            s
            for s in of_kind(objects, "Service")
            if _matches(s["spec"]["selector"], labels)
            and s["metadata"]["name"] != "orchestrator-pods"
        ]
        numbers = {p["name"]: p["containerPort"] for c in pod["containers"] for p in c["ports"]}
        for service in services:
            for port in service["spec"]["ports"]:
                if numbers.get(port["targetPort"]) not in allowed:
                    bad.append(f"{name(item)}: nobody may reach its port {port['targetPort']}")
    return bad


def volumes(objects: list[Object]) -> list[str]:
    """Every mount has its volume, every claim exists, and the root file system needs none."""
    claims = {item["metadata"]["name"] for item in of_kind(objects, "PersistentVolumeClaim")}
    bad = []
    for item, pod in workloads(objects):
        known = {volume["name"] for volume in pod.get("volumes", [])}
        known |= {c["metadata"]["name"] for c in item["spec"].get("volumeClaimTemplates", [])}
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in known:
                    bad.append(f"{name(item)} {container['name']}: no volume {mount['name']}")
            if not any(m["mountPath"] == "/tmp" for m in container.get("volumeMounts", [])):
                bad.append(f"{name(item)} {container['name']}: nowhere to write temporary files")
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                bad.append(f"{name(item)}: no claim {claim}")
    return bad


def config_maps(objects: list[Object]) -> list[str]:
    known = {item["metadata"]["name"] for item in of_kind(objects, "ConfigMap")}
    return [
        f"{name(item)} {container['name']}: no ConfigMap {source['configMapRef']['name']}"
        for item, pod in workloads(objects)
        for container in containers(pod)
        for source in container.get("envFrom", [])
        if "configMapRef" in source and source["configMapRef"]["name"] not in known
    ]


def scaling(objects: list[Object]) -> list[str]:
    """Never to zero, never down within a turn, never down because metrics are missing."""
    targets = {item["metadata"]["name"] for item, _ in servers(objects)}
    bad = []
    for item in of_kind(objects, "ScaledObject"):
        spec = item["spec"]
        if spec["scaleTargetRef"]["name"] not in targets:
            bad.append(f"{name(item)}: scales nothing")
        if spec.get("minReplicaCount", 0) < 1:
            bad.append(f"{name(item)}: scales to zero")
        if not spec.get("fallback"):
            bad.append(f"{name(item)}: no fall-back when metrics are missing")
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        if down.get("stabilizationWindowSeconds", 0) < 300:
            bad.append(f"{name(item)}: scales down within a turn")
        for trigger in spec["triggers"]:
            if trigger["metadata"].get("ignoreNullValues") != "false":
                bad.append(f"{name(item)}: no data would look like no viewers")
    if {
        item["spec"]["scaleTargetRef"]["name"] for item in of_kind(objects, "ScaledObject")
    } != targets:
        bad.append("a server has no autoscaler")
    return bad


def disruption(objects: list[Object]) -> list[str]:
    budgets = [
        i["spec"]["selector"]["matchLabels"] for i in of_kind(objects, "PodDisruptionBudget")
    ]
    bad = []
    for item, pod in servers(objects):
        labels = item["spec"]["template"]["metadata"]["labels"]
        if not any(_matches(budget, labels) for budget in budgets):
            bad.append(f"{name(item)}: no disruption budget")
        if not pod.get("topologySpreadConstraints"):
            bad.append(f"{name(item)}: all pods may be on one node")
    return bad


def headless(objects: list[Object]) -> list[str]:
    """Triton's Service is headless, and it is the one the orchestrators call, at its port."""
    bad = []
    services = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "Service")}
    for item, pod in servers(objects):
        for container in pod["containers"]:
            address = environment(objects, container).get("MUSETALK_TRITON")
            if address is None:
                continue
            service, _, port = address.removeprefix("dns:///").rpartition(":")
            spec = services.get(service)
            if spec is None or int(port) not in {p["port"] for p in spec["ports"]}:
                bad.append(f"{name(item)}: {address} is no service")
            elif spec.get("clusterIP") != "None":
                bad.append(f"Service/{service}: one connection would stay with one replica")
    return bad


def long_connections(objects: list[Object]) -> list[str]:
    """Websockets outlive a request's deadline, behind a gateway and behind an ingress."""
    bad = []
    for item in of_kind(objects, "HTTPRoute"):
        rules = [
            rule
            for rule in item["spec"]["rules"]
            if any(match["path"]["value"] == "/socket.io" for match in rule["matches"])
        ]
        if not rules or rules[0].get("timeouts", {}).get("request") != "0s":
            bad.append(f"{name(item)}: websockets are cut")
    for item in of_kind(objects, "Ingress"):
        notes = item["metadata"].get("annotations", {})
        if int(notes.get("nginx.ingress.kubernetes.io/proxy-read-timeout", 60)) < 3600:
            bad.append(f"{name(item)}: websockets are cut")
        if notes.get("nginx.ingress.kubernetes.io/proxy-buffering") != "off":
            bad.append(f"{name(item)}: video is held back")
    return bad


RULES: tuple[Rule, ...] = (
    limits, gpu_limit, probes, grace, restricted, no_tokens, pinned, selectors, ports, network,
    volumes, config_maps, scaling, disruption, headless, long_connections,
)  # fmt: skip
