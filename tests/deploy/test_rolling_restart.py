"""A rolling restart of everything under viewers and jobs, started as the manifests start it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from loadtests.loopback_llm import LoopbackLlm, loopback_llm
from loadtests.ports import free_port
from loadtests.viewer import Viewer
from orchestrator.inference.distribution import find_distribution
from orchestrator.rendering.tasks import end
from orchestrator.settings import ROOT

BIN = Path(sys.executable).parent
WORDS = "Number {0} is still here."
JOBS = 4


def load_pods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pods", Path(__file__).with_name("pods.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pods"] = module  # its dataclasses look there for their types
    spec.loader.exec_module(module)
    return module


PODS = load_pods()


class Member:
    """A viewer that is spoken to without an end, wherever the Service sends it."""

    def __init__(self, number: int, service: Any, key: str) -> None:
        self.number, self._service = number, service
        self.viewer = Viewer(service.pick(), {"profile": "economy"}, {"key": key})
        self.places: list[str] = []
        self.reports: list[dict[str, Any]] = []
        self.over = False

    async def watch(self) -> None:
        viewer = self.viewer
        await viewer.connect()
        self.places.append(viewer.url)
        text = WORDS.format(self.number)
        while not self.over:
            try:
                turn = await viewer.begin("ask", {"text": text})
            except Exception as refused:  # noqa: BLE001 -- whatever the client library calls it
                await self._elsewhere(refused)
                continue
            # A turn that began is served to its end, wherever its server is in its life.
            try:
                self.reports.append(await viewer.performance(turn))
            except TimeoutError:
                told = [(round(at, 2), name, what) for at, name, what in viewer.events[-12:]]
                raise AssertionError(f"turn {turn} did not end at {viewer.url}: {told}") from None
            assert not viewer.of("error", turn), viewer.of("error", turn)
            said = [
                line["text"] for line in viewer.of("transcript", turn) if line["role"] != "user"
            ]
            assert "".join(said).replace(" ", "") == f"Youasked:{text}".replace(" ", "")
            # The server may be gone before it has said that it is idle.
            idle = asyncio.ensure_future(viewer.idle_again(turn))
            lost = asyncio.ensure_future(viewer._lost.wait())
            try:
                await asyncio.wait({idle, lost}, return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    assert viewer.media[-1].kind == "idle", "it was cut off in the middle of a word"
                else:
                    idle.result()
            finally:
                await end(idle, lost)
        await viewer.__aexit__()

    async def _elsewhere(self, refused: Exception) -> None:
        """Go on at another server, as the studio does when its own is about to stop."""
        said = str(refused)
        assert "stop" in said or "lost" in said or not self.viewer._socket.connected, said
        await self.viewer.disconnect()
        while True:
            self.viewer.url = self._service.pick()
            with suppress(Exception):  # it may end in this moment; the next one is asked
                await self.viewer.connect(resume=True)
                break
            await asyncio.sleep(0.2)
        self.places.append(self.viewer.url)


class Cluster:
    """Two Tritons and two orchestrators of the overlay ``cpu``, a database and a store."""

    def __init__(
        self,
        objects: list[dict[str, Any]],
        folder: Path,
        outside: dict[str, str],
        portraits_ready: Callable[[Path], Path],
    ) -> None:
        """Only addresses, folders and secrets differ from what a cluster would run.

        Args:
            objects: the rendered overlay.
            folder: for all files.
            outside: what the Secrets hold, and the address of the language model.
            portraits_ready: makes a cache.
        """
        self._folder, self._base = folder, {**os.environ, **outside}
        self._scratch = folder / "backends"
        self._shared_memory = f"roll{os.getpid()}_"
        tritons = [self._triton(objects, n) for n in range(2)]
        self.tritons = [pod for pod, _ in tritons]
        self.migration = PODS.Kind.of(objects, "Job", "migration")
        address = ",".join(f"127.0.0.1:{grpc}" for _, grpc in tritons)
        orchestrator = PODS.Kind.of(objects, "StatefulSet", "orchestrator")
        assert orchestrator.secrets == ["MUSETALK_WORKER_ID", "MUSETALK_DATABASE_URL"]
        self.orchestrators = []
        for number in range(2):
            http, grpc = free_port(), free_port()
            here = portraits_ready(folder / f"orchestrator-{number}")
            replaced = {
                "MUSETALK_HOST": "127.0.0.1",
                "MUSETALK_PORT": str(http),
                "MUSETALK_GRPC_PORT": str(grpc),
                "MUSETALK_TRITON": f"ipv4:{address}",
                "MUSETALK_WORKER_ID": here.name,
                "MUSETALK_CACHE_DIR": str(here),
                "HOME": str(here),
            }
            environment = {**self._base, **orchestrator.environment, **outside, **replaced}
            _, *arguments = PODS.image_command(ROOT / "docker" / "orchestrator.Dockerfile")
            command = [str(BIN / "musetalk"), *arguments]
            base = f"http://127.0.0.1:{http}"
            self.orchestrators.append(PODS.Pod(orchestrator, base, command, environment, here))
        self.service = PODS.Service(self.orchestrators)

    def _triton(self, objects: list[dict[str, Any]], number: int) -> tuple[Any, int]:
        """The container's own script, with the tritonserver that is here."""
        kind = PODS.Kind.of(objects, "Deployment", "triton")
        script, repository = kind.container["command"]
        assert repository == "/models/demo"
        http, grpc, metrics = (free_port() for _ in range(3))
        here = self._folder / f"triton-{number}"
        (here / "scratch").mkdir(parents=True)
        found = find_distribution()
        options = [
            f"--backend-directory={found.lay_out_backends(here / 'scratch')}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}{number}",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
            "--allow-gpu-metrics=false",
        ]
        command = ["sh", str(ROOT / "docker" / script), str(ROOT / "model_repository" / "cpu")]
        environment = {**self._base, **found.environment(), **kind.environment}
        environment["PATH"] = f"{found.binary.parent}:{environment['PATH']}"
        base = f"http://127.0.0.1:{http}"
        return PODS.Pod(kind, base, [*command, *options], environment, here), grpc

    def run(self, *arguments: str, **environment: str) -> str:
        """A command of the orchestrator's image."""
        done = subprocess.run(
            [str(BIN / "musetalk"), *arguments],
            env={**self._base, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def pods(self) -> list[Any]:
        return [*self.orchestrators, *self.tritons]

    def _kill(self) -> None:
        """Leave nothing of it behind."""
        for pod in self.pods:
            pod.kill()
        for memory in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            memory.unlink()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(self.run, *self.migration.container["args"])
            await asyncio.gather(*(pod.start() for pod in self.tritons))
            await asyncio.gather(*(pod.start() for pod in self.orchestrators))
            yield
        finally:
            self._kill()


@pytest.fixture
async def llm() -> AsyncIterator[LoopbackLlm]:
    async with loopback_llm(tokens_per_second=50.0) as server:
        yield server


@pytest.fixture
def cluster(
    cpu_objects: list[dict[str, Any]],
    tmp_path: Path,
    postgres: str,
    s3: str,
    llm: LoopbackLlm,
    portraits_ready: Callable[[Path], Path],
) -> Cluster:
    # The bucket of the fixture stands for the one that the ConfigMap names.
    httpx.put(f"{os.environ['AWS_ENDPOINT_URL']}/musetalk", trust_env=False).raise_for_status()
    outside = {
        "MUSETALK_DATABASE_URL": postgres,
        "MUSETALK_API_KEYS_FILE": str(tmp_path / "keys"),
        "MUSETALK_LLM_BASE_URL": llm.url,
        "MUSETALK_LLM_API_KEY": "none",
        "MUSETALK_MAX_TALKERS": "2",
    }
    return Cluster(cpu_objects, tmp_path, outside, portraits_ready)


@pytest.mark.triton
@pytest.mark.slow
async def test_replacing_every_pod_breaks_no_turn_and_loses_no_job(
    cluster: Cluster, llm: LoopbackLlm
) -> None:
    key = cluster.run("keys", "add", "audience")
    async with cluster.running():
        members = [Member(number, cluster.service, key) for number in range(2)]
        watching = [asyncio.create_task(member.watch()) for member in members]
        try:
            async with httpx.AsyncClient(
                headers={"authorization": f"Bearer {key}"}, timeout=20, trust_env=False
            ) as client:
                jobs = [await order(client, cluster.service, number) for number in range(JOBS)]
                # Both workloads at once, each pod by pod, as an update of the overlay does.
                for pods in zip(cluster.orchestrators, cluster.tritons, strict=True):
                    before = [len(member.reports) for member in members]
                    await asyncio.gather(*(pod.replace() for pod in pods))
                    for member, count in zip(members, before, strict=True):
                        await until(lambda m=member, c=count: len(m.reports) > c, watching, 60)
                for job in jobs:
                    await finished(client, cluster.service, job, watching)
            for member in members:
                member.over = True
            await asyncio.wait_for(asyncio.gather(*watching), 60)
        finally:
            await end(*watching)

    reports = [report for member in members for report in member.reports]
    print(  # noqa: T201
        f"{len(reports)} turns, {sum(report['frames'] for report in reports)} frames, "
        f"{sum(report['frames_late'] for report in reports)} late; seconds to end "
        f"{[round(pod.ends[0], 1) for pod in cluster.pods]}"
    )
    for member in members:
        assert len(set(member.places)) == 2, member.places
        assert not member.viewer.problems, member.viewer.problems
    # What was said at one server is known at the next.
    last = llm.exchanges[-1].asked["messages"]
    assert len([said for said in last if said["role"] == "user"]) > 2
    made = [exchange.asked["messages"][-1]["content"] for exchange in llm.exchanges]
    assert sorted(text for text in made if text.startswith("Job")) == [
        f"Job number {number}." for number in range(JOBS)
    ]


async def order(client: httpx.AsyncClient, service: Any, number: int) -> str:
    answer = await client.post(
        f"{service.pick()}/v1/videos",
        json={"message": f"Job number {number}.", "profile": "economy"},
        headers={"idempotency-key": f"job-{number}"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def finished(
    client: httpx.AsyncClient, service: Any, job: str, watching: list[asyncio.Task[None]]
) -> None:
    state: dict[str, Any] = {}

    async def over() -> bool:
        answer = await client.get(f"{service.pick()}/v1/videos/{job}")
        assert answer.status_code == 200, answer.text
        state.update(answer.json())
        return bool(state["expires"])

    for _ in range(240):
        if await over():
            break
        for task in watching:
            if task.done():
                task.result()
        await asyncio.sleep(0.5)
    assert state["status"] == "succeeded", state
    video = await client.get(f"{service.pick()}{state['url']}")
    assert video.status_code == 200 and video.content[4:8] == b"ftyp"


async def until(
    condition: Callable[[], bool], watching: list[asyncio.Task[None]], seconds: float
) -> None:
    for _ in range(int(seconds / 0.1)):
        if condition():
            return
        for task in watching:
            if task.done():
                task.result()
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")
