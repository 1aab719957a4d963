from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.bench import run
from loadtests.bench_demo import demo
from orchestrator.errors import UsageError
from orchestrator.inference.backends.musetalk_openvino.openvino_engine import resolve_precision


@pytest.mark.triton
@pytest.mark.slow
async def test_each_precision_of_this_processor_is_timed() -> None:
    rows = {row.name.rpartition(" ")[2]: row for row in await demo(runs=5)}
    assert set(rows) == {"fp32", resolve_precision("auto")}
    for row in rows.values():
        assert row.value is not None and row.value > 0 and row.target
        assert len(row.details["milliseconds_a_frame"]) == 5
    if len(rows) > 1:  # else the configurations were not altered
        assert rows["bf16"].value < rows["fp32"].value  # type: ignore[operator]


async def test_an_unknown_section_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the demo checkpoint"):
        await run(tmp_path / "bench.json", tmp_path / "cache", quick=False, only="the demo chips")
    assert not (tmp_path / "bench.json").exists()
