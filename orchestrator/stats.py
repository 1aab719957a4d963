"""What the panel of the web page shows: sessions, Triton's models, the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import psutil

from orchestrator.errors import MuseTalkError, UnavailableError
from orchestrator.inference.protocol import ModelStatistics

MODELS: Final = ("whisper_encoder", "lipsync", "unet", "vae_decoder")
"""Models of live sessions, in the order of the data."""

_FRESH_SECONDS: Final = 1.0


class _Statistics(Protocol):
    """The part of Triton's client that is used here."""

    async def statistics(self, name: str) -> ModelStatistics:
        """Totals of a model since it was loaded."""
        ...


class Stats:
    """Gathers the numbers, at most once a second however many ask.

    Args:
        sessions: how many there are, by state, and their ``limit``.
        triton: gives the client; raises MuseTalkError while there is none.
        pending: requests for a model that have no answer yet.
    """

    def __init__(
        self,
        *,
        sessions: Callable[[], Mapping[str, int]],
        triton: Callable[[], _Statistics],
        pending: Callable[[str], int],
    ) -> None:
        self._sessions = sessions
        self._triton = triton
        self._pending = pending
        self._totals: dict[str, ModelStatistics] = {}
        self._latest: dict[str, Any] = {}
        self._gathered = float("-inf")
        self._one = asyncio.Lock()
        psutil.cpu_percent()  # the first call only starts the measurement

    async def snapshot(self) -> dict[str, Any]:
        """The numbers.

        Returns:
            ``sessions``; ``triton`` with ``available`` and ``models`` by name: mean batch, and
            milliseconds a request, of the last interval in which the model worked (null before
            that); ``machine`` with percent of all processors and of the memory.
        """
        async with self._one:
            if time.monotonic() - self._gathered >= _FRESH_SECONDS:
                models, available = await self._models()
                self._latest = {
                    "triton": {"available": available, "models": models},
                    "machine": {
                        "cpu_percent": psutil.cpu_percent(),
                        "memory": psutil.virtual_memory().percent,
                    },
                }
                self._gathered = time.monotonic()
            return {"sessions": dict(self._sessions()), **self._latest}

    async def _models(self) -> tuple[dict[str, Any], bool]:
        shown: dict[str, Any] = dict(self._latest.get("triton", {}).get("models", {}))
        try:
            client = self._triton()
            answers = await asyncio.gather(*(_totals(client, name) for name in MODELS))
        except MuseTalkError:
            return shown, False
        for name, totals in zip(MODELS, answers, strict=True):
            if totals is None:
                continue
            before = self._totals.get(name)
            self._totals[name] = totals
            entry = dict(
                shown.get(name) or {"batch_mean": None, "queue_ms": None, "compute_ms": None}
            )
            if before is not None and totals.executions > before.executions:
                entry = _since(before, totals)
            shown[name] = {**entry, "pending": self._pending(name)}
        return shown, True


async def _totals(client: _Statistics, name: str) -> ModelStatistics | None:
    """Totals of a model; None when the server has no such model."""
    try:
        return await client.statistics(name)
    except UnavailableError:
        raise
    except MuseTalkError:
        return None


def _since(before: ModelStatistics, now: ModelStatistics) -> dict[str, float]:
    requests = max(1, now.requests - before.requests)
    return {
        "batch_mean": round((now.rows - before.rows) / (now.executions - before.executions), 2),
        "queue_ms": round((now.queue_seconds - before.queue_seconds) / requests * 1000, 2),
        "compute_ms": round((now.compute_seconds - before.compute_seconds) / requests * 1000, 2),
    }
