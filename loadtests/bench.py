"""``make bench``: what this machine can do, and how much of that the system gets out of it."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import psutil
from rich.console import Console

from loadtests.bench_batching import batching, request_sizes
from loadtests.bench_cache import BenchCache, Decoder, Size
from loadtests.bench_demo import SECTION as DEMO
from loadtests.bench_demo import demo
from loadtests.bench_live import SECTION as LIVE
from loadtests.bench_live import live
from loadtests.bench_model import against_pytorch
from loadtests.bench_report import Row, show, write
from loadtests.bench_service import against_old_way, claimed_gains, media
from loadtests.bench_triton import BareChain, Inputs, overhead, throughput
from loadtests.burst import BATCHES, burst
from loadtests.machine import Machine, measure
from loadtests.plain_loop import PlainLoop
from loadtests.turns import BREAKS
from orchestrator.errors import MuseTalkError, SetupError, UsageError
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.sessions.profiles import CLASSIC

CLIENTS: Final = 8
SMALL_BATCH: Final = 8
FULL_BATCH: Final = 4
"""Of the full-size networks, to keep float32 activations small."""
FULL_MEMORY: Final = 16e9
"""Free memory to have: the server takes 7 GB (measured), bare OpenVINO beside it 6.5 GB."""
OVERHEAD_TARGETS: Final = {"full": 1.05, "small": 1.10}
BURST_TARGET: Final = 1.3
LOAD_LIMIT: Final = 1.0
LOG_WIDTH: Final = 180
"""Of the table where there is no terminal to ask."""

_Section = Callable[[], Awaitable[list[Row]]]


class Bench:
    """The sections, each independent of the others' success."""

    def __init__(self, cache: BenchCache, *, quick: bool) -> None:
        """Set up.

        Args:
            cache: of checkpoints and repositories.
            quick: few repetitions.
        """
        self._cache = cache
        self._quick = quick

    async def networks(self, size: Size, decoder: Decoder) -> list[Row]:
        """One repository: against bare OpenVINO, many clients, a burst, and PyTorch.

        Raises:
            SetupError: this machine has too little disk or memory.
            MuseTalkError: something failed.
        """
        repository = await asyncio.to_thread(self._cache.repository, size, decoder)
        checkpoint = await asyncio.to_thread(self._cache.checkpoint, size)
        if size == "full" and psutil.virtual_memory().available < FULL_MEMORY:
            raise SetupError(
                f"{psutil.virtual_memory().available / 1e9:.0f} GB of memory are free, "
                f"{FULL_MEMORY / 1e9:.0f} GB are needed",
                remedy="end other programs",
            )
        rows = []
        async with (
            EmbeddedTriton(repository) as server,
            TritonClient(server.grpc_address, default_timeout=600) as client,
        ):
            if size == "small" or decoder == "full":
                rows.append(await self._overhead(client, repository, size, decoder))
            if size == "small" or decoder == "fast":
                rows += await self._clients(client, size, decoder)
                rows.append(await self._burst(client, size, decoder))
            rows += await self._batches(client, repository, size, decoder)
            with PlainLoop(checkpoint) as loop:
                rows += await against_pytorch(
                    client,
                    repository,
                    loop,
                    size=size,
                    decoder=decoder,
                    batch=SMALL_BATCH if size == "small" else FULL_BATCH,
                    pairs=2 if size == "full" else 2 if self._quick else 10,
                )
        return rows

    async def _overhead(
        self, client: TritonClient, repository: Path, size: Size, decoder: Decoder
    ) -> Row:
        batch, runs = (SMALL_BATCH, 5 if self._quick else 40) if size == "small" else (4, 4)
        bare = await asyncio.to_thread(BareChain, repository)
        found = await overhead(client, bare, batch, runs)
        return Row(
            _section(size, decoder),
            f"Triton against bare OpenVINO, batch {batch}",
            found.ratio,
            "x",
            OVERHEAD_TARGETS[size],
            "most",
            f"{found.triton * 1000:.2f} and {found.bare * 1000:.2f} ms a frame; median of "
            f"{runs} pairs, taken in turn",
            details={"triton_seconds_a_frame": found.triton, "bare_seconds_a_frame": found.bare},
        )

    async def _clients(self, client: TritonClient, size: Size, decoder: Decoder) -> list[Row]:
        seconds = 1.0 if self._quick else 10.0
        rows = []
        for batch in (1, SMALL_BATCH) if size == "small" and not self._quick else (1,):
            one = await throughput(client, clients=1, batch=batch, seconds=seconds)
            many = await throughput(client, clients=CLIENTS, batch=batch, seconds=seconds)
            rows.append(
                Row(
                    _section(size, decoder),
                    f"{CLIENTS} clients against 1, batch {batch} each",
                    many / one,
                    "x",
                    note=f"{many:.1f} and {one:.1f} frames/s together",
                    details={"one": one, "many": many},
                )
            )
        return rows

    async def _batches(
        self, client: TritonClient, repository: Path, size: Size, decoder: Decoder
    ) -> list[Row]:
        section = _section(size, decoder)
        if size == "full":
            # A second server of this size beside the first does not fit everywhere.
            return await request_sizes(client, section, 2)
        rows = await request_sizes(client, section, 3 if self._quick else 20)
        if not self._quick:
            return rows + await batching(client, repository, section)
        return rows + await batching(
            client, repository, section, sessions=(1, 8), profiles=(CLASSIC,), seconds=0.3
        )

    async def _burst(self, client: TritonClient, size: Size, decoder: Decoder) -> Row:
        batch = (await client.model_config("lipsync")).max_batch
        inputs = Inputs.random(batch)
        tensors = {"latents": inputs.latents, "audio": inputs.audio}
        found = await burst(client, "lipsync", tensors, batches=5 if self._quick else BATCHES)
        return Row(
            _section(size, decoder),
            f"burst of {found.batches} full batches ({batch})",
            found.ratio,
            "x ideal",
            BURST_TARGET,
            "most",
            f"{found.seconds:.2f} s, one alone {found.alone_seconds:.3f} s",
            details={"seconds": found.seconds, "alone_seconds": found.alone_seconds},
        )


def _section(size: Size, decoder: Decoder) -> str:
    return f"{size}-size networks, {decoder} decoder"


def _machine_rows(machine: Machine) -> list[Row]:
    section = "this machine, matrix products"
    native = machine.bf16_tflops
    return [
        Row(section, "fp32", machine.fp32_tflops, "TFLOP/s"),
        Row(
            section,
            "bf16",
            native,
            "TFLOP/s",
            note="by OpenVINO, 2048x2048" if native else "not measured: this CPU has no bf16",
        ),
    ]


async def _guarded(section: str, work: _Section) -> list[Row]:
    """A section's rows; what stopped it becomes its row."""
    try:
        return await work()
    except SetupError as error:
        return [Row(section, "not measured", None, note=str(error))]
    except (MuseTalkError, BrokenProcessPool, RuntimeError, SubprocessError, *BREAKS) as error:
        return [Row(section, "not measured", None, note=str(error) or repr(error), failed=True)]


def _sections(
    bench: Bench, output: Path, cache: Path, *, quick: bool
) -> list[tuple[str, _Section]]:
    small: tuple[str, _Section] = (
        _section("small", "full"),
        lambda: bench.networks("small", "full"),
    )
    if quick:
        return [small]
    return [
        small,
        (DEMO, demo),
        (_section("small", "fast"), lambda: bench.networks("small", "fast")),
        (_section("full", "full"), lambda: bench.networks("full", "full")),
        (_section("full", "fast"), lambda: bench.networks("full", "fast")),
        ("media, one core", media),
        ("claims, text to MP4", claimed_gains),
        (LIVE, lambda: live(cache / "service", output.with_suffix(".png"))),
        ("the old way", lambda: against_old_way(cache / "service")),
    ]


async def run(output: Path, cache: Path, *, quick: bool, only: str = "") -> int:
    """Measure everything, print the table, write the file.

    Args:
        output: JSON file.
        cache: folder of checkpoints, repositories and what the service keeps.
        quick: small networks only, few repetitions.
        only: sections whose names begin so, besides the machine; empty: all.

    Returns:
        Exit status: 1 if a section failed, else 0; a missed target is no failure.

    Raises:
        UsageError: there is no such section.
    """
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=LOG_WIDTH)
    bench = Bench(BenchCache(cache, lambda line: console.print(line, markup=False)), quick=quick)
    sections = _sections(bench, output, cache, quick=quick)
    chosen = [(name, work) for name, work in sections if name.startswith(only)]
    if not chosen:
        names = "; ".join(name for name, _ in sections)
        raise UsageError(f"no section begins with {only!r}: there are {names}")
    started = time.time()
    load = os.getloadavg()[0]
    machine = measure()
    native = "bf16" if machine.bf16_tflops else "fp32"
    console.print(f"{machine.cpu}, {machine.cores} cores, precision auto is {native}")
    if load > LOAD_LIMIT:
        console.print(f"Load average is {load:.1f}: others compute here too; trust ratios only.")
    rows = _machine_rows(machine)
    for name, work in chosen:
        console.print(f"Measuring: {name}", markup=False)
        rows += await _guarded(name, work)
    show(console, rows)
    facts = {
        "started": datetime.datetime.fromtimestamp(started, datetime.timezone.utc).isoformat(),
        "seconds": round(time.time() - started, 1),
        "load_average_at_start": load,
        "quick": quick,
    }
    write(output, machine, rows, facts)
    console.print(f"All figures: {output}", markup=False)
    return 1 if any(row.failed for row in rows) else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench.json"))
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("out/bench-cache"),
        help="folder of random checkpoints and their repositories, made when missing",
    )
    parser.add_argument("--quick", action="store_true", help="small networks only, in seconds")
    parser.add_argument("--only", default="", metavar="SECTION", help="whose name begins so")
    given = parser.parse_args()
    try:
        return asyncio.run(run(given.output, given.cache, quick=given.quick, only=given.only))
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
