"""``python -m export.demo``: portraits, training and the checkpoint of the demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

app = typer.Typer(add_completion=False, help=__doc__)
CHECKPOINT = Path(__file__).parent / "checkpoint"
REPOSITORY = Path(__file__).parents[2] / "model_repository" / "cpu"
Folder = Annotated[Path, typer.Option(help="Folder of the training run, outside git.")]


@app.command()
def portraits(folder: Path = Path("orchestrator/avatars/portraits")) -> None:
    """Draw the idle clips of all people."""
    from export.demo.idle import write_all

    for path in write_all(folder):
        typer.echo(path)
    follow(folder)


@app.command()
def follow(folder: Path = Path("orchestrator/avatars/portraits")) -> None:
    """Find the faces of the idle clips as they are, as any clip's are found, and store them."""
    import asyncio

    from orchestrator.avatars.known import write_track
    from orchestrator.avatars.media import read_frames, source_digest
    from orchestrator.avatars.tracking import track
    from orchestrator.settings import Settings

    (folder / "tracks").mkdir(exist_ok=True)
    for clip in sorted(folder.glob("*.mp4")):
        frames = asyncio.run(read_frames(clip, Settings()))
        target = folder / "tracks" / f"{clip.stem}.npz"
        write_track(track(frames.jpegs), source_digest(clip, Settings()), target)
        typer.echo(target)


@app.command()
def train(
    workdir: Folder,
    hours: float = 4.0,
    clips: int = 240,
    frames: int = 12000,
    threads: int = 2,
    bf16: bool = True,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to train on, such as the shipped one; none: from nothing."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of speech and frames: another makes others.")] = 0,
) -> None:
    """Make data, train, write WORKDIR/checkpoint; run it again to go on after a stop."""
    import torch

    from export.demo.training import train as run

    os.nice(10)
    torch.set_num_threads(threads)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "pid").write_text(f"{os.getpid()}\n")
    console = Console(highlight=False)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, part: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=1.0)
            bar.update(tasks[phase], completed=part)

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        run(workdir, hours, clips, frames, bf16, say, show, start_from, seed)


@app.command()
def checkpoint(workdir: Folder, target: Path) -> None:
    """Write the networks as trained so far in MuseTalk's file layout."""
    from export.demo.training import write_checkpoint

    write_checkpoint(workdir, target)


@app.command()
def ship(
    workdir: Annotated[
        Path | None, typer.Option(help="Of a training run; none: the shipped checkpoint.")
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="That is shipped.")] = CHECKPOINT,
    repository: Annotated[Path, typer.Option(help="That is served.")] = REPOSITORY,
) -> None:
    """Write the checkpoint as trained so far, and the repository that is served from it."""
    from export.demo.ship import ship as run

    run(workdir, checkpoint, repository, say=lambda line: typer.echo(line))


@app.command()
def evaluate(
    repository: Annotated[Path, typer.Option(help="To judge.")] = REPOSITORY,
    output: Annotated[Path, typer.Option(help="For pictures and figures.")] = Path("out/demo"),
    speech: Annotated[
        list[Path] | None,
        typer.Option(help="A recording of anybody, instead; its text in NAME.txt beside it."),
    ] = None,
) -> None:
    """Judge the models through Triton on speech that training never had."""
    import asyncio

    from export.demo.evaluate import evaluate as run
    from export.demo.evaluate import listen, report
    from orchestrator.settings import Settings

    if speech:
        from export.demo.heard import report as report_heard

        report_heard(asyncio.run(listen(repository, Settings(), speech)), output)
        return
    found = asyncio.run(run(repository, Settings()))
    report(found, output)


@app.command()
def curves(workdir: Folder, output: Path = Path("out/demo/curves.png")) -> None:
    """Draw the losses of a training run."""
    from export.demo.curves import draw

    draw(workdir / "curves.jsonl", output)
    typer.echo(output)


if __name__ == "__main__":
    app()
