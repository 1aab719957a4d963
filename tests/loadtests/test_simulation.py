"""The capacity model: what must hold whatever the service times are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests import simulation
from loadtests.simulation import (
    GPUS,
    ON_TIME,
    Scaling,
    Seen,
    ServiceTime,
    Talk,
    capacity,
    carried,
    chance,
    computed,
    crowd,
    day,
    gpus_needed,
    percentile,
)

ROOT = Path(__file__).resolve().parents[2]
TALKER = Talk(turn=20.0, share=1.0)


def test_one_talker_at_full_speed_gets_what_the_gpu_gives() -> None:
    time = ServiceTime(0.01, 0.01, "test")
    seen = crowd(1, 1, time, talk=TALKER, paced=False, seconds=60)
    assert seen.frames_a_second == pytest.approx(8 / time(8), rel=0.05)


def test_a_paced_talker_takes_25_frames_a_second_and_waits_for_nobody() -> None:
    time = ServiceTime(0.0, 0.002, "test")
    seen = crowd(1, 1, time, talk=TALKER, seconds=600)
    assert seen.frames_a_second == pytest.approx(25, rel=0.05)
    assert percentile(seen.waits, 0.95) == pytest.approx(time(8))
    assert seen.late == 0


def test_batches_that_are_slow_now_and_then_are_waited_for() -> None:
    time = ServiceTime(0.0, 0.002, "test", spread=(1.0,) * 9 + (3.0,))
    seen = crowd(1, 1, time, talk=TALKER, seconds=600)
    assert percentile(seen.waits, 0.8) == pytest.approx(time(8))
    assert percentile(seen.waits, 0.95) == pytest.approx(3 * time(8))


@given(rate=st.floats(30, 2000), fixed=st.floats(0, 0.01))
@settings(max_examples=15, deadline=None)
def test_capacity_never_exceeds_the_work_a_gpu_can_do(rate: float, fixed: float) -> None:
    time = ServiceTime(fixed, 1 / rate, "test")
    most = capacity(time, seconds=40)
    # A talker between two turns leaves its GPU to the others, by up to a tenth.
    assert most <= math.ceil(8 / time(8) / 25 * 1.1) + 1
    if most:
        assert carried(most, 1, time, talk=TALKER, seconds=40)


def test_what_more_gpus_bring() -> None:
    time = computed(205, 121)
    few = crowd(40, 1, time, seconds=60)
    many = crowd(40, 4, time, seconds=60)
    assert few.on_time < ON_TIME <= many.on_time
    assert percentile(many.starts, 0.95) < percentile(few.starts, 0.95)


def test_the_answer_for_a_crowd_is_enough_and_one_fewer_is_not() -> None:
    time = computed(205, 121)
    gpus = gpus_needed(100, time, seconds=60)
    assert carried(100, gpus, time, seconds=60)
    assert not carried(100, gpus - 1, time, seconds=60)


def test_an_answer_holds_for_more_than_one_run_by_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*_: object, seed: int) -> Seen:
        return Seen(frames=100, late=4 * seed)

    monkeypatch.setattr(simulation, "crowd", run)
    assert run(seed=0).on_time >= ON_TIME
    assert not carried(100, 6, computed(205, 121))


def test_a_viewer_says_the_same_whoever_serves_it() -> None:
    quick = [crowd(5, gpus, ServiceTime(0.0, 0.001, "t"), seconds=200) for gpus in (1, 5)]
    assert quick[0].turns == quick[1].turns
    lengths = [TALKER.length(chance(0, 3)) for _ in range(2)]
    assert lengths[0] == lengths[1] != TALKER.length(chance(0, 4))


def test_the_only_gpu_cannot_be_lost() -> None:
    with pytest.raises(ValueError, match="only GPU"):
        crowd(1, 1, computed(205, 121), lost_at=1.0)


def test_a_lost_node_costs_frames_only_where_nothing_was_spare() -> None:
    time = computed(205, 121)
    tight = gpus_needed(100, time, seconds=60)
    lost = crowd(100, tight, time, seconds=120, lost_at=60)
    spare = crowd(100, tight + 2, time, seconds=120, lost_at=60)
    assert spare.on_time >= ON_TIME
    assert lost.late > spare.late


def test_overlapping_batches_bring_what_was_measured() -> None:
    plain = crowd(8, 1, ServiceTime(0.0, 0.01, "t"), talk=TALKER, paced=False)
    faster = crowd(8, 1, ServiceTime(0.0, 0.01, "t", overlap=1.2), talk=TALKER, paced=False)
    assert faster.frames_a_second / plain.frames_a_second == pytest.approx(1.2, rel=0.03)


HOURS = (5, 50, 100, 20)


def test_a_day_serves_every_turn_and_follows_the_traffic() -> None:
    found = day(100, Scaling(per_gpu=4), hours=HOURS)
    assert found.turns > 1000
    assert len(found.waited) >= found.turns - 5
    assert found.most_gpus > 4
    assert found.gpu_hours < found.most_gpus * len(HOURS)


def test_slow_scaling_up_delays_more_turns() -> None:
    quick = day(100, Scaling(per_gpu=4, start=5, target=0.9), hours=HOURS)
    slow = day(100, Scaling(per_gpu=4, start=900, target=0.9), hours=HOURS)
    assert slow.delayed > quick.delayed
    assert max(slow.waited) > max(quick.waited)


def test_the_autoscaler_is_that_of_the_manifests() -> None:
    path = ROOT / "k8s" / "components" / "keda" / "scaling.yaml"
    triton, _ = yaml.safe_load_all(path.read_text())
    spec, planned = triton["spec"], Scaling(per_gpu=1)
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (up,), (down,) = (behaviour[way]["policies"] for way in ("scaleUp", "scaleDown"))
    assert (up["value"], up["periodSeconds"]) == (planned.up, planned.up_period)
    assert (down["value"], down["periodSeconds"]) == (planned.down, planned.down_period)
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == planned.calm
    assert (spec["pollingInterval"], spec["minReplicaCount"]) == (planned.poll, planned.least)


def test_a_crowd_that_comes_at_once_gets_two_gpus_a_minute() -> None:
    scaling = Scaling(per_gpu=1, start=0.0)
    few = day(200, scaling, hours=(100,), visit=60.0)
    many = day(200, replace(scaling, up=100), hours=(100,), visit=60.0)
    assert few.delayed > many.delayed
    assert few.most_gpus <= 1 + 2 * 60 < many.most_gpus


def test_a_lost_gpu_is_replaced() -> None:
    with_loss = day(100, Scaling(per_gpu=4), hours=HOURS, lost_at=2 * 3600 + 1800)
    without = day(100, Scaling(per_gpu=4), hours=HOURS)
    assert sum(with_loss.waited) >= sum(without.waited)
    assert with_loss.waited[-1] < 60


def test_chance_is_seeded() -> None:
    time = computed(205, 121)
    assert crowd(20, 1, time, seed=3, seconds=30) == crowd(20, 1, time, seed=3, seconds=30)
    assert crowd(20, 1, time, seed=3, seconds=30) != crowd(20, 1, time, seed=4, seconds=30)


@pytest.mark.slow
def test_the_sizing_table_of_the_docs_is_what_this_says() -> None:
    readme = (ROOT / "k8s" / "README.md").read_text()
    for gpu in ("L4", "H100 SXM"):
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| {gpu} (")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        full, fast = GPUS[f"{gpu}, full decoder"], GPUS[f"{gpu}, fast decoder"]
        assert cells[1:3] == [str(capacity(full)), str(capacity(fast))]
    assert cells[4] == str(gpus_needed(1000, GPUS["H100 SXM, fast decoder"]))
