"""The report of a load test: plots as PNG, tables and verdicts as HTML."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from loadtests.figures import SECONDS, Turn, Verdict, values
from loadtests.sampling import QUEUED_MODEL, Sample
from loadtests.simulation import percentile
from loadtests.soak import per_minute

_SIZE: Final = (10.0, 5.0)
_BUCKET: Final = 10.0
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;text-align:left;"
    "border-bottom:1px solid #ccc}.missed{color:#a00;font-weight:600}img{max-width:100%}"
)


def write(
    folder: Path,
    title: str,
    verdicts: Sequence[Verdict],
    turns: Sequence[Turn],
    samples: Sequence[Sample],
) -> Path:
    """Write ``report.html`` and its plots.

    Args:
        folder: exists.
        title: what was run, and where.
        verdicts: the objectives.
        turns: of the run, in the order of their ends.
        samples: of the run, in order, at least one.

    Returns:
        The page.
    """
    plots: list[tuple[str, str, Callable[[Any], None]]] = [
        ("latency", "Latency distributions", lambda axes: _latency(axes, turns)),
        ("on_time", "Frames on time, and users", lambda axes: _on_time(axes, turns, samples)),
        ("batch", f"Triton: batch size of {QUEUED_MODEL}", lambda axes: _batch(axes, samples)),
        ("queue", f"Triton: queue of {QUEUED_MODEL}", lambda axes: _queue(axes, samples)),
        ("cpu", "Processor of each process", lambda axes: _cpu(axes, samples)),
        ("memory", "Memory of each process", lambda axes: _memory(axes, samples)),
    ]
    for name, words, draw in plots:
        figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
        draw(axes)
        axes.set_title(words)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)
    body = [f"<h1>{html.escape(title)}</h1>", _verdicts(verdicts), _figures(turns)]
    body += [f'<h2>{words}</h2><img src="{name}.png" alt="{words}">' for name, words, _ in plots]
    body += [_failures(turns), _minutes(samples)]
    page = folder / "report.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style>{''.join(body)}</html>\n"
    )
    return page


def _latency(axes: Any, turns: Sequence[Turn]) -> None:
    for name in SECONDS:
        for kind, found in values(turns, name).items():
            if name in ("sound_offset", "real_time_factor"):
                continue
            ordered = sorted(found)
            shares = [(i + 1) / len(ordered) for i in range(len(ordered))]
            axes.step(ordered, shares, where="post", label=f"{name.replace('_', ' ')}, {kind}")
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of requests that took at most that")


def _on_time(axes: Any, turns: Sequence[Turn], samples: Sequence[Sample]) -> None:
    start = samples[0].at
    buckets: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.frames:
            buckets.setdefault(int((turn.at - start) // _BUCKET), []).append(turn)
    moments = sorted(buckets)
    shares = [
        100 * (1 - sum(t.late for t in buckets[m]) / sum(t.frames for t in buckets[m]))
        for m in moments
    ]
    axes.plot([m * _BUCKET for m in moments], shares, "o-", label="frames on time")
    axes.set_ylabel("% of the frames of turns that ended in 10 s")
    axes.set_xlabel("seconds")
    axes.set_ylim(min([90.0, *shares]) - 1, 100.5)
    users = axes.twinx()
    counts = [len({(t.kind, t.user) for t in buckets[m]}) for m in moments]
    users.plot([m * _BUCKET for m in moments], counts, "s--", color="gray")
    users.set_ylabel("users with such a turn (grey)")
    users.set_ylim(0, max([1, *counts]) + 1)


def _rates(
    samples: Sequence[Sample], of: Callable[[dict[str, float], dict[str, float]], float | None]
) -> tuple[list[float], list[float]]:
    """A figure of each interval in which it can be computed."""
    moments, found = [], []
    for before, after in itertools.pairwise(one for one in samples if one.triton):
        value = of(before.triton, after.triton)
        if value is not None:
            moments.append(after.at - samples[0].at)
            found.append(value)
    return moments, found


def _grown(name: str, before: dict[str, float], after: dict[str, float]) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


def batch_size(before: dict[str, float], after: dict[str, float]) -> float | None:
    """Mean batch of the executions between two samples."""
    runs = _grown("nv_inference_exec_count", before, after)
    rows = _grown("nv_inference_count", before, after)
    return rows / runs if runs else None


def queue_ms(before: dict[str, float], after: dict[str, float]) -> float | None:
    """Mean milliseconds that the requests between two samples waited."""
    requests = _grown("nv_inference_request_success", before, after)
    waited = _grown("nv_inference_queue_duration_us", before, after)
    return waited / requests / 1000 if requests else None


def _batch(axes: Any, samples: Sequence[Sample]) -> None:
    axes.plot(*_rates(samples, batch_size), ".-")
    axes.set_xlabel("seconds")
    axes.set_ylabel("rows of a batch, mean of a second")


def _queue(axes: Any, samples: Sequence[Sample]) -> None:
    axes.plot(*_rates(samples, queue_ms), ".-", label="wait, ms (mean of a second)")
    told = [one for one in samples if "nv_inference_pending_request_count" in one.triton]
    axes.plot(
        [one.at - samples[0].at for one in told],
        [one.triton["nv_inference_pending_request_count"] for one in told],
        label="requests waiting",
    )
    axes.set_xlabel("seconds")


def _cpu(axes: Any, samples: Sequence[Sample]) -> None:
    for role in sorted({name for one in samples for name in one.usage}):
        moments, cores = [], []
        for before, after in itertools.pairwise(samples):
            if role in before.usage and role in after.usage:
                moments.append(after.at - samples[0].at)
                spent = after.usage[role].cpu - before.usage[role].cpu
                cores.append(max(0.0, spent) / (after.at - before.at))
        axes.plot(moments, cores, label=role)
    axes.set_xlabel("seconds")
    axes.set_ylabel("cores")


def _memory(axes: Any, samples: Sequence[Sample]) -> None:
    for role in sorted({name for one in samples for name in one.usage}):
        told = [one for one in samples if role in one.usage]
        axes.plot(
            [one.at - samples[0].at for one in told],
            [one.usage[role].memory / 1e6 for one in told],
            label=role,
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB resident")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = "".join(
        f'<tr class="{"met" if one.met else "missed"}"><td>{"met" if one.met else "MISSED"}</td>'
        f"<td>{html.escape(one.name)}</td><td>{html.escape(one.found)}</td>"
        f"<td>{html.escape(one.wanted)}</td></tr>"
        for one in verdicts
    )
    return f"<h2>Objectives</h2><table>{rows}</table>"


def _figures(turns: Sequence[Turn]) -> str:
    rows = [
        [name.replace("_", " "), kind, str(len(found))]
        + [f"{percentile(found, share):.3f}" for share in (0.5, 0.95, 0.99)]
        + [f"{max(found):.3f}"]
        for name in SECONDS
        for kind, found in sorted(values(turns, name).items())
    ]
    head = ("figure", "of", "requests", "median", "p95", "p99", "largest")
    return "<h2>Figures</h2><p>Seconds; the real-time factor has no unit.</p>" + _table(head, rows)


def _failures(turns: Sequence[Turn]) -> str:
    counts: dict[tuple[str, str], int] = {}
    for turn in turns:
        if turn.error:
            words = ("refused: " if turn.refused else "") + turn.error[:200]
            key = (f"{turn.kind} {turn.request}", words)
            counts[key] = counts.get(key, 0) + 1
    rows = [[kind, words, str(count)] for (kind, words), count in counts.items()]
    table = _table(("of", "what", "times"), rows) if rows else "<p>None.</p>"
    return f"<h2>Failures and refusals</h2>{table}"


def _minutes(samples: Sequence[Sample]) -> str:
    rows = [
        [f"{start / 60:.0f}", role, f"{memory / 1e6:.1f}", f"{files:.1f}"]
        for start, roles in per_minute(samples)
        for role, (memory, files) in roles.items()
    ]
    head = ("minute", "process", "memory, MB", "open files")
    return "<h2>Memory and descriptors by the minute</h2>" + _table(head, rows)
