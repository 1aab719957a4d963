from __future__ import annotations

from orchestrator.sessions.times import TurnTimes
from orchestrator.telemetry import Telemetry


def test_turns_and_sessions() -> None:
    telemetry = Telemetry()
    times = TurnTimes()
    times.reached("token")
    with times.measure("speech"):
        pass
    times.generated, times.idle, times.late, times.made = 10, 3, 2, 0.6
    telemetry.live.turn_ended("ok", times)
    telemetry.live.turn_ended("interrupted", TurnTimes())
    sessions = {"idle": 1, "speaking": 2}
    telemetry.live.watch(sessions=lambda: sessions, waiting=lambda: {"lipsync": 5})
    sessions["idle"] = 4
    text = telemetry.render().decode()
    for line in (
        'musetalk_turns_total{result="ok"} 1.0',
        'musetalk_turns_total{result="interrupted"} 1.0',
        'musetalk_first_seconds_count{what="token"} 1.0',
        'musetalk_turn_stage_seconds_count{stage="speech"} 1.0',
        'musetalk_live_frames_total{kind="generated"} 10.0',
        'musetalk_live_frames_total{kind="late"} 2.0',
        "musetalk_turn_real_time_factor_count 1.0",
        'musetalk_sessions{state="idle"} 4.0',
        'musetalk_requests_waiting{model="lipsync"} 5.0',
    ):
        assert line in text.splitlines(), line
