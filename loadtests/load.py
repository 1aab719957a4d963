"""``make load``: Locust against a Triton server, its report in ``out/load/``.

The users ask Triton directly for faces; the live service is not part of it yet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from rich.console import Console

from orchestrator.errors import MuseTalkError
from orchestrator.inference import EmbeddedTriton
from orchestrator.settings import settings

LOCUSTFILE = Path(__file__).parent / "locustfile.py"


async def run(users: int, seconds: int, output: Path, triton: str | None) -> int:
    """Run Locust; its exit status says whether the objective was met.

    Args:
        users: avatars that talk at the same time.
        seconds: how long.
        output: folder of the report, which exists.
        triton: address of a server; None starts the embedded one.
    """
    async with contextlib.AsyncExitStack() as stack:
        if triton is None:
            server = EmbeddedTriton(settings().repository)
            triton = (await stack.enter_async_context(server)).grpc_address
        Console().print(f"{users} talkers for {seconds} s against {triton}")
        locust = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", triton),
            *("-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--only-summary"),
            *("--html", str(output / "report.html"), "--csv", str(output / "load")),
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
        try:
            return await asyncio.wait_for(locust.wait(), seconds + 120)
        finally:
            if locust.returncode is None:
                locust.kill()
                await locust.wait()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Load test of the Triton server")
    parser.add_argument("--users", type=int, default=2, help="talkers at the same time")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("out/load"))
    parser.add_argument("--triton", help="host:port of a running server")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(run(given.users, given.seconds, given.output, given.triton))
    except MuseTalkError as error:
        Console(stderr=True).print(f"load: {error}", highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
