"""Containers of the rendered manifests as processes: their commands, environment, probes, ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PRE_STOP = 1.0
"""Seconds of a preStop ``sleep``, which in a cluster waits for others to hear of the end. Here they
hear at once, so all but a second of it is left out. Nothing else of the manifests is shortened."""


@dataclass(frozen=True)
class Kind:
    """One kind of pod, as the manifests describe it.

    Attributes:
        container: its only container.
        grace: seconds from the beginning of its end to SIGKILL, without the preStop.
        environment: ConfigMaps and plain values. Secrets and fields are left to the caller.
        secrets: variables that a Secret or a field of the pod gives.
    """

    container: dict[str, Any]
    grace: float
    environment: dict[str, str]
    secrets: list[str]

    @classmethod
    def of(cls, objects: list[dict[str, Any]], kind: str, name: str) -> Kind:
        """Find a workload among the rendered objects."""
        found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        pod = found[kind, name]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        environment: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                environment |= found["ConfigMap", source["configMapRef"]["name"]]["data"]
        plain = {e["name"]: e["value"] for e in container.get("env", []) if "value" in e}
        secrets = [e["name"] for e in container.get("env", []) if "value" not in e]
        grace = pod.get("terminationGracePeriodSeconds", 30) - pre_stop(container)
        return cls(container, grace, environment | plain, secrets)

    def probe(self, which: str, base: str) -> str:
        """Address of a probe."""
        return f"{base}{self.container[which]['httpGet']['path']}"


def pre_stop(container: dict[str, Any]) -> float:
    """Seconds that the preStop hook sleeps; it does nothing else."""
    hook = container.get("lifecycle", {}).get("preStop")
    if hook is None:
        return 0.0
    program, seconds = hook["exec"]["command"]
    assert program == "sleep"
    return float(seconds)


@dataclass
class Pod:
    """A process in place of a pod.

    Attributes:
        kind: of the pod.
        base: address of its HTTP port.
        command: of its container.
        environment: all of it.
        folder: where its log is.
        endpoint: whether the Service sends anybody there.
        ends: seconds that each of its ends took, without the preStop.
    """

    kind: Kind
    base: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    endpoint: bool = False
    ends: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """It does not run yet."""
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "log"

    async def start(self) -> None:
        """Start it; it is an endpoint when its probes say so."""
        with self.log.open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for which in ("startupProbe", "readinessProbe"):
            probe = self.kind.container[which]
            patience = min(120, probe["failureThreshold"] * probe["periodSeconds"])
            end = time.monotonic() + patience
            while not await self._answers(which):
                assert self._process.poll() is None, self.tail()
                assert time.monotonic() < end, f"{which}: {self.tail()}"
                await asyncio.sleep(0.2)
        self.endpoint = True

    async def _answers(self, which: str) -> bool:
        timeout = self.kind.container[which].get("timeoutSeconds", 1)
        try:
            async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
                answer = await client.get(self.kind.probe(which, self.base))
        except httpx.TransportError:
            return False
        return answer.is_success

    async def end(self) -> None:
        """End it as a kubelet does: no endpoint, preStop, SIGTERM, and SIGKILL after the grace."""
        assert self._process is not None
        self.endpoint = False
        await asyncio.sleep(min(PRE_STOP, pre_stop(self.kind.container)))
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        while self._process.poll() is None:
            assert time.monotonic() - began < self.kind.grace, f"SIGKILL: {self.tail()}"
            await asyncio.sleep(0.05)
        self.ends.append(time.monotonic() - began)
        assert self._process.returncode == 0, self.tail()

    async def replace(self) -> None:
        """What a rolling update does with it."""
        await self.end()
        await self.start()

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def tail(self) -> str:
        """The last of its log."""
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Service:
    """The Service before the pods: ready ones in turn."""

    pods: list[Pod]

    def __post_init__(self) -> None:
        """Nobody was sent anywhere."""
        self._turn = 0

    def pick(self) -> str:
        """Address of the next ready pod."""
        ready = [pod for pod in self.pods if pod.endpoint]
        assert ready, "no pod is ready: the manifests' rollout would break its disruption budget"
        self._turn += 1
        return ready[self._turn % len(ready)].base


def image_command(dockerfile: Path) -> list[str]:
    """ENTRYPOINT and CMD of an image."""
    lines = dockerfile.read_text().splitlines()
    found = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if " " in line}
    return [*json.loads(found["ENTRYPOINT"]), *json.loads(found["CMD"])]
