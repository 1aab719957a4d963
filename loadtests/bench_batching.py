"""What the size of a request and Triton's dynamic batching give, with 1 to 8 sessions.

A session asks for its next chunk as soon as it has the last one, in chunks of its profile.
Batching is switched off in a copy of the repository's configurations; both servers run beside
each other, and are measured in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from loadtests.altered import altered
from loadtests.bench_report import Row
from loadtests.bench_triton import request_seconds, throughput
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.sessions.profiles import PROFILES, Profile

SIZES: Final = (1, 2, 4, 8)
SESSIONS: Final = (1, 2, 4, 8)


async def request_sizes(client: TritonClient, section: str, runs: int) -> list[Row]:
    """Frames a second of one session, by the frames it asks for at a time.

    Args:
        client: of a warm server with nobody else on it.
        section: of the rows.
        runs: requests of each size; the median counts.
    """
    rows = []
    for size in SIZES:
        seconds = statistics.median(await request_seconds(client, size, runs))
        rows.append(
            Row(
                section,
                f"1 session, batch {size}",
                size / seconds,
                "frames/s",
                note=f"{seconds * 1000:.1f} ms a request, {seconds / size * 1000:.1f} ms a frame",
                details={"seconds_a_request": seconds},
            )
        )
    return rows


def unbatched(repository: Path, folder: Path) -> Path:
    """A copy of a repository in which no model batches requests; its weights are not copied.

    Args:
        repository: a built one.
        folder: for the copy, on the same disk or another.
    """
    return altered(
        repository, folder / "unbatched", lambda config: config.ClearField("dynamic_batching")
    )


async def batching(
    client: TritonClient,
    repository: Path,
    section: str,
    *,
    sessions: Sequence[int] = SESSIONS,
    profiles: Iterable[Profile] = PROFILES.values(),
    seconds: float = 5.0,
) -> list[Row]:
    """Dynamic batching on against off, for the batch of each profile.

    Args:
        client: of a server of the repository.
        repository: that it serves.
        section: of the rows.
        sessions: at a time.
        profiles: whose batches are asked for.
        seconds: of each measurement.
    """
    rows = []
    with TemporaryDirectory(prefix="musetalk-bench-") as folder:
        async with (
            EmbeddedTriton(unbatched(repository, Path(folder))) as server,
            TritonClient(server.grpc_address, default_timeout=600) as plain,
        ):
            for profile in profiles:
                for count in sessions:
                    before = await client.statistics("unet")
                    on = await throughput(
                        client, clients=count, batch=profile.batch, seconds=seconds
                    )
                    after = await client.statistics("unet")
                    off = await throughput(
                        plain, clients=count, batch=profile.batch, seconds=seconds
                    )
                    runs = after.executions - before.executions
                    mean = (after.rows - before.rows) / runs
                    rows.append(
                        Row(
                            section,
                            f"dynamic batching on against off, profile {profile.name}, "
                            f"{count} session{'s' if count > 1 else ''}",
                            on / off,
                            "x",
                            note=f"{on:.1f} and {off:.1f} frames/s together; requests of "
                            f"{profile.batch} frames became batches of {mean:.1f}",
                            details={"on": on, "off": off, "mean_batch": mean},
                        )
                    )
    return rows
