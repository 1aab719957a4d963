"""Alerts, dashboards and autoscalers ask for metrics that exist, and fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.inference import EmbeddedTriton
from orchestrator.settings import settings
from orchestrator.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "k8s/components/monitoring/alerts.yaml").read_text())
SCALED = list(yaml.safe_load_all((ROOT / "k8s/components/keda/scaling.yaml").read_text()))
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/musetalk.json").read_text())
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
METRIC = re.compile(r"\b((?:musetalk|nv|process)_[a-z_]+)\b")


def expressions() -> dict[str, str]:
    found = {
        rule["alert"]: rule["expr"] for group in RULES["spec"]["groups"] for rule in group["rules"]
    }
    for item in SCALED:
        for trigger in item["spec"]["triggers"]:
            found[f"scaling {item['metadata']['name']}"] = trigger["metadata"]["query"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def test_compose_has_the_same_alerts() -> None:
    assert yaml.safe_load(ALERTS.read_text())["groups"] == RULES["spec"]["groups"]


def ours() -> set[str]:
    """Names of the series that our service exposes, those without a sample yet included."""
    telemetry = Telemetry()
    telemetry.live.watch(sessions=lambda: {"idle": 1}, waiting=lambda: {"lipsync": 0})
    text = telemetry.render().decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    names = set(families)
    for name, kind in families.items():
        if kind == "histogram":
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return names


@pytest.mark.triton
async def test_every_metric_exists() -> None:
    import httpx

    async with (
        EmbeddedTriton(settings().repository, brief=True) as server,
        httpx.AsyncClient() as http,
    ):
        answer = await http.get(f"http://{server.metrics_address}/metrics", timeout=10)
    known = ours() | set(re.findall(r"^# TYPE (\S+) ", answer.text, re.M))
    for where, expression in expressions().items():
        asked = set(METRIC.findall(expression))
        assert asked, where
        assert asked <= known, f"{where}: {sorted(asked - known)}"


def test_every_alert_has_its_runbook() -> None:
    runbook = (ROOT / "k8s" / "RUNBOOK.md").read_text()
    headings = {line[3:].strip().lower() for line in runbook.splitlines() if line.startswith("## ")}
    for group in RULES["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["alert"].lower() in headings
            assert rule["annotations"]["runbook"].endswith("#" + rule["alert"].lower())


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=cwd
    )


def test_prometheus_takes_its_configuration() -> None:
    done = promtool("check", "config", "prometheus.yml", cwd=ALERTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def case(name: str, series: dict[str, str], alerts: list[str]) -> dict[str, Any]:
    """A promtool test: series over 30 minutes, and the alerts that fire at the end."""
    rules = {rule["alert"]: rule for group in RULES["spec"]["groups"] for rule in group["rules"]}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": "29m",
                "alertname": alert,
                "exp_alerts": [
                    {
                        "exp_labels": rules[alert]["labels"]
                        | ({"model": "unet"} if alert == "TritonMissing" else {}),
                        "exp_annotations": rules[alert]["annotations"],
                    }
                ]
                if alert in alerts
                else [],
            }
            for alert in rules
        ],
    }


# A busy, healthy half hour, each series by its growth a minute.
HEALTHY = {
    'musetalk_live_frames_total{kind="generated"}': "0+3000x30",
    'musetalk_live_frames_total{kind="late"}': "0+5x30",
    'musetalk_first_seconds_bucket{what="frame",le="0.8"}': "0+20x30",
    'musetalk_first_seconds_bucket{what="frame",le="2"}': "0+20x30",
    'musetalk_first_seconds_bucket{what="frame",le="+Inf"}': "0+20x30",
    "musetalk_session_refusals_total": "0+1x30",
    'nv_inference_queue_duration_us{model="unet"}': "0+4000000x30",
    'nv_inference_request_success{model="unet"}': "0+400x30",
    'nv_inference_request_failure{model="unet",reason="OTHER"}': "0x30",
    'musetalk_turns_total{result="ok"}': "0+20x30",
    'musetalk_turns_total{result="triton_unavailable"}': "0x30",
}
INCIDENTS: dict[str, dict[str, str | None]] = {
    "FramesLate": {'musetalk_live_frames_total{kind="late"}': "0+60x30"},
    "FirstFrameSlow": {'musetalk_first_seconds_bucket{what="frame",le="0.8"}': "0+5x30"},
    "SessionsRefused": {"musetalk_session_refusals_total": "0+30x30"},
    "TritonQueueLong": {'nv_inference_queue_duration_us{model="unet"}': "0+120000000x30"},
    "TritonFailing": {'nv_inference_request_failure{model="unet",reason="OTHER"}': "0+30x30"},
    "TritonMissing": {
        'nv_inference_request_success{model="unet"}': None,
        'nv_inference_queue_duration_us{model="unet"}': None,
    },
    "TurnsFailing": {'musetalk_turns_total{result="triton_unavailable"}': "0+5x30"},
}


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    tests = [case("healthy", HEALTHY, [])]
    for alert, changes in INCIDENTS.items():
        merged = HEALTHY | changes
        tests.append(case(alert, {k: v for k, v in merged.items() if v is not None}, [alert]))
    assert set(INCIDENTS) == {r["alert"] for g in RULES["spec"]["groups"] for r in g["rules"]}
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
    )
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


RECORDED = {
    path.stem: json.loads(path.read_text())
    for path in sorted(Path(__file__).with_name("recorded").glob("*.json"))
}
"""What a real service and a real Triton exported under load; see record_metrics.py."""

EXPECTED = {
    "healthy": set[str](),
    "overloaded": {"FramesLate", "FirstFrameSlow", "TritonQueueLong"},
    "crowded": {"SessionsRefused"},
    "without-triton": {"TritonMissing", "TurnsFailing"},
    "failing": {"TritonFailing", "TurnsFailing"},
}
MINUTES = 30


def prolonged(values: list[float | None], gauge: bool) -> str:
    """A recording that goes on for half an hour as it was, in promtool's notation.

    A counter grows again and again by what it grew; a series that ended stays away.
    """
    wanted = int(MINUTES * 60 / RECORDED["healthy"]["period"])
    known = [value for value in values if value is not None]
    before = next(i for i, value in enumerate(values) if value is not None)
    row: list[float | None] = list(values)
    if values[-1] is not None:
        steps = [0.0, *(b - a for a, b in pairwise(known))]
        while len(row) < wanted:
            for value, step in zip(known, steps, strict=True):
                row.append(value if gauge else float(row[-1] or 0.0) + step)
    row = [None] * before + row[before:wanted]
    row += [None] * (wanted - len(row))
    return " ".join("_" if value is None else f"{value:g}" for value in row)


def in_cluster(name: str) -> str:
    """A series as the cluster's Prometheus has it: its monitors add where it comes from."""
    return name.replace("{", '{namespace="musetalk",').replace(",}", "}")


@pytest.mark.parametrize("name", EXPECTED)
def test_alerts_on_a_recorded_load_run(name: str, tmp_path: Path) -> None:
    recording = RECORDED[name]
    series = {
        in_cluster(key): prolonged(values, "musetalk_sessions" in key or "pending" in key)
        for key, values in recording["series"].items()
    }
    test = case(name, series, sorted(EXPECTED[name]))
    test["interval"] = f"{recording['period']:g}s"
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]})
    )
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, f"{recording['about']}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", ["healthy", "overloaded"])
def test_autoscalers_on_a_recorded_load_run(name: str, tmp_path: Path) -> None:
    recording = RECORDED[name]
    period = recording["period"]
    rows = recording["series"]
    (pending,) = (row for key, row in rows.items() if "pending" in key)
    speaking = next(row for key, row in rows.items() if 'state="speaking"' in key)
    # A second after the last sample: versions of Prometheus differ on the edge of a window.
    at = len(pending) - 1
    last = [value for value in pending[at + 1 - int(60 / period) :] if value is not None]
    expected = {"triton": sum(last) / len(last), "orchestrator": speaking[at]}
    triggers = {
        item["metadata"]["name"]: item["spec"]["triggers"][0]["metadata"] for item in SCALED
    }
    more = expected["triton"] > float(triggers["triton"]["threshold"])  # than one replica's share
    assert more == (name == "overloaded"), expected
    queries = {which: trigger["query"] for which, trigger in triggers.items()}
    test = {
        "interval": f"{period:g}s",
        "input_series": [
            {
                "series": in_cluster(key),
                "values": " ".join("_" if value is None else f"{value:g}" for value in values),
            }
            for key, values in rows.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"round({query}, 0.001)",
                "eval_time": f"{at * period + 1:g}s",
                "exp_samples": [{"labels": "{}", "value": round(expected[which], 3)}],
            }
            for which, query in queries.items()
        ],
    }
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": [], "evaluation_interval": "1s", "tests": [test]})
    )
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, f"{recording['about']}\n{done.stdout}{done.stderr}"
