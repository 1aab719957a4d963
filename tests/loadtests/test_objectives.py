"""What decides over a run, without running one."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from loadtests.figures import Objectives, Turn, judge, read
from loadtests.report import batch_size, queue_ms, write
from loadtests.sampling import OWN, Processes, Sample, Usage, read_samples, triton_metrics
from loadtests.shapes import users_at
from loadtests.soak import drift, flat

GOOD = Turn(0.0, 0, "live", "say", 100, 1, {"first_frame": 0.5}, marker=True)


def missed(*turns: Turn, objectives: Objectives | None = None) -> list[str]:
    verdicts = judge(turns, objectives or Objectives())
    return [verdict.name.partition(":")[0] for verdict in verdicts if not verdict.met]


def test_objectives() -> None:
    assert missed(GOOD) == []
    assert missed(replace(GOOD, late=2)) == ["frames on time"]
    assert missed(replace(GOOD, figures={"first_frame": 1.6})) == ["p95 first frame"]
    assert missed(replace(GOOD, figures={})) == ["p95 first frame"]
    assert missed(GOOD, replace(GOOD, marker=False)) == ["cross-talk"]
    assert missed(replace(GOOD, marker=None)) == ["cross-talk"]
    assert missed(GOOD, replace(GOOD, error="broken")) == ["requests that failed"]
    assert missed(GOOD, replace(GOOD, error="full", refused=True)) == []
    assert missed(GOOD, objectives=Objectives(on_time=1.01)) == ["frames on time"]


def test_a_run_in_which_nothing_happened_fails() -> None:
    assert missed() == ["requests that failed"]
    assert "frames on time" in missed(replace(GOOD, frames=0, late=0))


def test_a_kind_of_users_that_was_asked_for_and_never_heard_of_fails() -> None:
    other = Turn(0.0, 0, "http", "speak")
    for turns in ([other], [other, replace(GOOD, error="full", refused=True)]):
        verdicts = judge(turns, Objectives(), ["live", "http"])
        assert [(one.name, one.found) for one in verdicts if not one.met] == [
            ("kinds of users of which not one turn was taken", "live")
        ]
    assert all(one.met for one in judge([other, GOOD], Objectives(), ["live", "http"]))


def test_turns_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text(GOOD.line() + "\n")
    assert list(read(path)) == [GOOD]


def test_shapes() -> None:
    assert [users_at("steady", t, 60, 4) for t in (0, 59, 60)] == [4, 4, None]
    assert [users_at("soak", t, 60, 4) for t in (0, 59, 60)] == [4, 4, None]
    assert [users_at("ramp", t, 60, 4) for t in (0, 15, 30, 59, 60)] == [1, 2, 3, 4, None]
    assert [users_at("spike", t, 100, 9) for t in (0, 40, 59, 60, 100)] == [3, 9, 9, 3, None]


def samples(grow: int = 0, files: int = 0) -> list[Sample]:
    return [
        Sample(
            float(t),
            {"triton": Usage(t / 2, 10**9 + grow * t, 50 + files * t, 4)},
            {
                "nv_inference_count": 8.0 * t,
                "nv_inference_exec_count": 2.0 * t,
                "nv_inference_request_success": 4.0 * t,
                "nv_inference_queue_duration_us": 12_000.0 * t,
                "nv_inference_pending_request_count": 1.0,
            },
        )
        for t in range(200)
    ]


def test_a_leak_of_memory_or_files_is_found() -> None:
    assert all(verdict.met for verdict in flat(samples()))
    # 100 s lie between the middles of the quarters: 1.25 times that is 2.5 %.
    leaking = [verdict.name for verdict in flat(samples(grow=10**6)) if not verdict.met]
    assert len(leaking) == 1 and leaking[0].startswith("memory of triton")
    leaking = [verdict.name for verdict in flat(samples(files=1)) if not verdict.met]
    assert len(leaking) == 1 and leaking[0].startswith("descriptors of triton")
    assert not flat(samples()[:3])[0].met


@pytest.mark.parametrize(("growth", "met"), [(0.0, True), (0.0005, False)])
def test_drift(growth: float, met: bool) -> None:
    turns = [
        replace(GOOD, at=float(t), figures={"sound_offset": 0.02 + growth * t}) for t in range(100)
    ]
    (verdict,) = drift(turns)
    assert verdict.met is met
    assert not drift(turns[:2])[0].met


def test_triton_counts_batches_and_waits() -> None:
    text = (
        "# TYPE nv_inference_exec_count counter\n"
        'nv_inference_exec_count{model="unet",version="1"} 5\n'
        'nv_inference_exec_count{model="lipsync",version="1"} 9\n'
    )
    assert triton_metrics(text) == {"nv_inference_exec_count": 5.0}
    first, second = samples()[:2]
    assert batch_size(first.triton, second.triton) == 4
    assert queue_ms(first.triton, second.triton) == 3
    assert batch_size(first.triton, first.triton) is None


def test_own_process_is_sampled() -> None:
    usage = Processes().usage()[OWN]
    assert usage.cpu > 0 and usage.processes == 1
    assert usage.memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_what_ended_processes_used_still_counts() -> None:
    processes = Processes()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        before = processes.usage()["other"]
    finally:
        busy.kill()
        busy.wait()
    processes.usage()  # sees that it has ended
    after = processes.usage()["other"]
    assert after.cpu >= before.cpu > 0.1
    assert after.processes == before.processes - 1


def test_what_is_ending_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes()
    viewers = subprocess.Popen(
        [sys.executable, "-c", "input()", "loadtests.live_viewers"], stdin=subprocess.PIPE
    )
    try:
        role = "load generator: viewers"
        while role not in processes.usage():
            time.sleep(0.01)  # it is still the program that forked it
        # Its memory is gone, its parent has not been told: no command line any more.
        monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [])
        assert processes.usage()[role].cpu >= 0
        assert "other" not in processes.usage()
    finally:
        viewers.kill()
        viewers.wait()


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("".join(sample.line() + "\n" for sample in samples(grow=5)))
    assert read_samples(tmp_path / "s") == samples(grow=5)


def test_the_report_says_what_failed(tmp_path: Path) -> None:
    turns = [GOOD, replace(GOOD, error="<the line broke>")]
    page = write(tmp_path, "a & b", judge(turns, Objectives()), turns, samples())
    text = page.read_text()
    assert "&lt;the line broke&gt;" in text and "a &amp; b" in text and "MISSED" in text
    assert len(list(tmp_path.glob("*.png"))) == 6
