"""``make load``: users against the whole system, a report with plots in ``out/load/``.

Starts Triton, a language model of known speed on loopback and the service, all with the installed
repository, then Locust with the users and the shape of the options, and samples what every
process uses. The exit status says whether the objectives were met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

import psutil
from rich.console import Console

from loadtests.figures import Objectives, Turn, Verdict, judge, read
from loadtests.loopback_llm import loopback_llm
from loadtests.machine import cpu_name
from loadtests.ports import free_port
from loadtests.report import write
from loadtests.sampling import Sample, Sampler, read_samples
from loadtests.service import UNLIMITED, serving
from loadtests.shapes import SHAPES
from loadtests.soak import drift, flat
from loadtests.turns import TURN_SECONDS
from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.inference import EmbeddedTriton
from orchestrator.settings import settings

LOCUSTFILE: Final = Path(__file__).parent / "locustfile.py"
KINDS: Final = ("live", "triton", "grpc", "http", "video")

_FINISH_SECONDS: Final = math.ceil(TURN_SECONDS) + 10
"""That users get at the end for what they are at: the slow requests must be in the figures, and a
turn that never ends must have failed by then."""
_ENDING_SECONDS: Final = 180


@contextlib.asynccontextmanager
async def system(given: argparse.Namespace) -> AsyncIterator[tuple[dict[str, str], str]]:
    """Start what the users need: addresses as ``MUSETALK_LOAD_*``, and that of Triton's metrics.

    Raises:
        MuseTalkError: Triton could not be started.
        TimeoutError: the service did not become ready.
    """
    async with contextlib.AsyncExitStack() as stack:
        triton = await stack.enter_async_context(EmbeddedTriton(settings().repository))
        addresses = {"MUSETALK_LOAD_TRITON": triton.grpc_address}
        if set(_kinds(given.mix)) != {"triton"}:
            port = free_port()
            options = {"MUSETALK_TRITON": triton.grpc_address, "MUSETALK_GRPC_PORT": str(port)}
            if not given.admission:
                options |= UNLIMITED
            llm = await stack.enter_async_context(loopback_llm())
            url = await stack.enter_async_context(serving(llm, given.cache, **options))
            addresses |= {
                "MUSETALK_LOAD_URL": url,
                "MUSETALK_LOAD_GRPC": f"127.0.0.1:{port}",
            }
        yield addresses, triton.metrics_address


async def run(given: argparse.Namespace) -> int:
    """Run Locust and write the report.

    Args:
        given: the options of ``main``.

    Returns:
        0 when all objectives were met, else 1.
    """
    console = Console()
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "turns.jsonl").unlink(missing_ok=True)
    async with system(given) as (addresses, metrics):
        what = f"{given.users} users ({given.mix}), {given.shape}, {given.seconds:.0f} s"
        console.print(what)
        sampled = given.output / "samples.jsonl"
        sampling = asyncio.create_task(Sampler(sampled, metrics).run())
        try:
            status = await _locust(given, addresses)
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
    samples = read_samples(sampled)
    turns = sorted(read(given.output / "turns.jsonl"), key=lambda turn: turn.at)
    objectives = Objectives(given.on_time, given.first_frame, given.failures)
    verdicts = judge(turns, objectives, _kinds(given.mix))
    if given.shape == "soak":
        verdicts += _lasting(given, samples, turns)
    title = f"Load test: {what}, {psutil.cpu_count()} cores of {cpu_name()}"
    page = await asyncio.to_thread(write, given.output, title, verdicts, turns, samples)
    for one in verdicts:
        word = "met" if one.met else "MISSED"
        console.print(f"{word}: {one.name}: {one.found}, wanted {one.wanted}", highlight=False)
    console.print(f"report: {page}", highlight=False)
    met = all(one.met for one in verdicts)
    if status and met:
        # For a reason of its own: an error in a user, say.
        log = given.output / "locust.log"
        console.print(f"Locust ended with status {status}: see {log}", highlight=False)
    return 0 if status == 0 and met else 1


def _lasting(given: argparse.Namespace, samples: list[Sample], turns: list[Turn]) -> list[Verdict]:
    """What a soak is judged by besides."""
    verdicts = flat(samples)
    return verdicts + (drift(turns) if "live" in _kinds(given.mix) else [])


async def _locust(given: argparse.Namespace, addresses: dict[str, str]) -> int:
    options = {
        "MIX": given.mix,
        "SHAPE": given.shape,
        "USERS": str(given.users),
        "SECONDS": str(given.seconds),
        "ON_TIME": str(given.on_time),
        "FIRST_FRAME": str(given.first_frame),
        "FAILURES": str(given.failures),
        "THINK": "{} {}".format(*given.think),
        "SPEAKING": str(given.speaking),
        "OUTPUT": str(given.output.resolve()),
    }
    environment = {f"MUSETALK_LOAD_{name}": value for name, value in options.items()}
    log = given.output / "locust.log"
    with log.open("wb") as words:
        locust = await _started(given, words, {**addresses, **environment})
    try:
        status = await asyncio.wait_for(locust.wait(), given.seconds + _ENDING_SECONDS)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise SetupError(
            f"Locust did not end within {_ENDING_SECONDS} s of its last second",
            remedy=f"see {log}",
        ) from error
    finally:
        if locust.returncode is None:
            locust.kill()
            await locust.wait()
    if not (given.output / "turns.jsonl").exists():
        raise SetupError("Locust reported nothing", remedy=f"see {log}")
    return status


async def _started(
    given: argparse.Namespace, log: IO[bytes], environment: dict[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--html", str(given.output / "locust.html"), "--csv", str(given.output / "load")),
        *("--loglevel", "WARNING", "--stop-timeout", str(_FINISH_SECONDS)),
        env={**os.environ, **environment, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
    )


def _kinds(mix: str) -> list[str]:
    return [part.partition(":")[0] for part in mix.split(",")]


def _mix(text: str) -> str:
    for part in text.split(","):
        kind, _, weight = part.partition(":")
        if kind not in KINDS or not (weight or "1").isdigit() or weight == "0":
            raise argparse.ArgumentTypeError(f"{part}: give KIND or KIND:WEIGHT of {KINDS}")
    return text


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Load test of the whole system")
    parser.add_argument("--users", type=int, default=2, help="the most at the same time")
    parser.add_argument(
        "--mix", type=_mix, default="live", help="kinds of users: live:2,http:1 (default: live)"
    )
    parser.add_argument("--shape", choices=SHAPES, default="steady")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument(
        "--think",
        type=float,
        nargs=2,
        default=(0.5, 2.0),
        help="seconds between turns, from and to",
    )
    parser.add_argument(
        "--speaking", type=int, default=0, help="live users in a turn at the same time; 0: all"
    )
    parser.add_argument("--on-time", type=float, default=0.99, help="least share of frames")
    parser.add_argument("--first-frame", type=float, default=1.5, help="most seconds, p95")
    parser.add_argument("--failures", type=float, default=0.0, help="most share of requests")
    parser.add_argument(
        "--admission", action="store_true", help="leave MUSETALK_MAX_TALKERS as it is"
    )
    parser.add_argument("--output", type=Path, default=Path("out/load"))
    parser.add_argument("--cache", type=Path, default=Path("out/load_cache"))
    given = parser.parse_args()
    try:
        return asyncio.run(run(given))
    except (MuseTalkError, TimeoutError) as error:
        Console(stderr=True).print(f"load: {error}", highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
