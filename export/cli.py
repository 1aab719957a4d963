"""``musetalk export``: fetch, init, build, verify.

Torch is imported only by a command that needs it, so that help stays fast and serving needs
none of it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.errors import SetupError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", help="Folder in MuseTalk's layout.")
]
_REMEDY = "pip install -c constraints.txt '.[export]', or run make once with the target test"


def _require_export() -> None:
    """Say what is missing when only the serving packages are installed."""
    try:
        import torch  # noqa: F401 -- only whether it is there
    except ImportError as error:
        raise SetupError(f"exporting needs the export packages: {error}", remedy=_REMEDY) from error


@app.callback()
def prepare() -> None:
    """Checkpoint to Triton repository."""
    # A stopped build must remove its temporary folder: leave through the finally blocks.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _choice(value: str, allowed: tuple[str, ...], option: str) -> str:
    if value not in allowed:
        raise typer.BadParameter(f"{option} is one of {', '.join(allowed)}")
    return value


@app.command()
def fetch(
    directory: Annotated[Path, typer.Argument(help="Where the checkpoint goes.")] = Path(
        "checkpoints/musetalk"
    ),
    only: Annotated[
        list[str] | None, typer.Option(help="Fetch only this part; may be repeated.")
    ] = None,
    accept_licences: Annotated[
        bool, typer.Option("--accept-licences", help="Do not ask; you have read them.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="Mirror of the model hub to use.")] = None,
) -> None:
    """Download the official weights, resumable and checked."""
    from export.fetch import run

    run(directory, only=only, accept=accept_licences, endpoint=endpoint)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="New folder to write.")],
    size: Annotated[str, typer.Option(help="full or small.")] = "small",
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Write a randomly initialised checkpoint: for speed and tests, it speaks nonsense."""
    _require_export()
    from export.init import SIZES
    from export.init import init as run

    run(directory, _choice(size, SIZES, "--size"), seed)
    Console().print(f"{directory}: a {size} checkpoint with random weights")


@app.command()
def build(
    checkpoint: CheckpointOption,
    repository: Annotated[Path, typer.Option("--repository", help="Folder to write.")],
    target: Annotated[str, typer.Option(help="cpu (OpenVINO).")] = "cpu",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    decoder: Annotated[str, typer.Option(help="full (the VAE) or fast (taesd/).")] = "full",
) -> None:
    """Build a Triton model repository from a checkpoint."""
    _require_export()
    from export.build import DECODERS, LATER_TARGETS, PRECISIONS, TARGETS
    from export.build import build as run

    console = Console()
    if target not in LATER_TARGETS:  # these get an answer of their own
        _choice(target, TARGETS, "--target")
    manifest = run(
        checkpoint,
        repository,
        target,
        _choice(precision, PRECISIONS, "--precision"),
        _choice(decoder, DECODERS, "--decoder"),
        progress=lambda step: console.print(step, highlight=False),
    )
    for name, entry in manifest.models.items():
        console.print(
            f"{name}: {entry.parameters / 1e6:.1f} M values, {entry.gflop:.1f} GFLOP",
            highlight=False,
        )
    console.print(f"{repository}: ready to serve, weights {manifest.weights_id}", highlight=False)


@app.command()
def verify(
    checkpoint: CheckpointOption,
    repository: Annotated[Path, typer.Option("--repository", help="Built from it.")],
    triton: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Server of that repository; else it is started."),
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(help="Picture of a face to use instead of the sample.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="Speech to use instead of the sample.")] = None,
) -> None:
    """Accuracy gate: the served models against PyTorch on real inputs."""
    _require_export()
    from export.verify import print_table
    from export.verify import verify as run

    results = asyncio.run(run(checkpoint, repository, triton, frames, audio))
    print_table(results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)
