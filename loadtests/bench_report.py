"""Rows of figures: one table on the terminal, one JSON file with everything."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.machine import Machine


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none.

    Attributes:
        section: of the table.
        name: what was measured.
        value: the figure; None when it was not measured.
        unit: of the figure.
        target: bound that the project set itself, in the figure's unit.
        bound: whether ``target`` is the least or the most that is good enough.
        note: how it was measured, what limits it, or why it is missing.
        failed: whether it should have been measured and could not.
        details: further figures for the JSON file.
    """

    section: str
    name: str
    value: float | None
    unit: str = ""
    target: float | None = None
    bound: Literal["least", "most"] = "least"
    note: str = ""
    failed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a figure or a target."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.bound == "least" else self.value <= self.target


def show(console: Console, rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="Benchmarks", title_justify="left")
    table.add_column("section")
    table.add_column("measured")
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("note")
    section = ""
    for row in rows:
        if row.section != section and section:
            table.add_section()
        sign = "≥" if row.bound == "least" else "≤"
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        table.add_row(
            escape(row.section) if row.section != section else "",
            escape(row.name),
            "-" if row.value is None else f"{row.value:.4g} {row.unit}".strip(),
            "" if row.target is None else f"{sign} {row.target:g}",
            "FAILED" if row.failed else verdict,
            escape(row.note),
        )
        section = row.section
    console.print(table)


def write(path: Path, machine: Machine, rows: list[Row], facts: dict[str, Any]) -> None:
    """Write the JSON file.

    Args:
        path: the file; its folder is made.
        machine: what was measured on.
        rows: the figures.
        facts: of the run as a whole (date, load, options).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        **facts,
        "machine": asdict(machine),
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
