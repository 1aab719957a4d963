from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from loadtests.loopback_llm import LoopbackLlm, loopback_llm


@pytest.fixture
async def llm() -> AsyncIterator[LoopbackLlm]:
    """A language model on loopback, as fast as can be."""
    async with loopback_llm(tokens_per_second=0) as server:
        yield server
