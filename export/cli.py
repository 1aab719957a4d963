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
def prepare(context: typer.Context) -> None:
    """Checkpoint to Triton repository."""
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        # A stopped build must remove its temporary folder: leave through the finally blocks.
        stopped.append(number)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # PyTorch's exporter may wrap what it is interrupted by into an error of its own.
    context.call_on_close(lambda: sys.exit(128 + stopped[0]) if stopped else None)


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
    Console().print(f"{directory}: a {size} checkpoint with random weights", soft_wrap=True)


@app.command()
def build(
    checkpoint: CheckpointOption,
    repository: Annotated[
        Path | None, typer.Option("--repository", help="Folder to write; --plan needs none.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="cpu (OpenVINO), tensorrt or onnxruntime (CUDA).")
    ] = "cpu",
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16 on a CPU; auto or fp16 on a GPU.")
    ] = "auto",
    decoder: Annotated[str, typer.Option(help="full (the VAE) or fast (taesd/).")] = "full",
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what a GPU build would make; needs no GPU.")
    ] = False,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Keep a repository that is up to date.")
    ] = False,
    fall_back: Annotated[
        bool,
        typer.Option("--fall-back", help="Serve a model without a good engine by ONNX Runtime."),
    ] = False,
) -> None:
    """Build a Triton model repository from a checkpoint."""
    _require_export()
    from export.build import DECODERS, PRECISIONS, TARGETS, up_to_date
    from export.build import build as run

    console = Console(highlight=False)
    _choice(target, TARGETS, "--target")
    _choice(precision, PRECISIONS[target], "--precision")
    _choice(decoder, DECODERS, "--decoder")
    if plan:
        from export.gpu.plan import plan as planned
        from export.gpu.plan import print_plan

        print_plan(list(planned(checkpoint, decoder)), console)
        return
    if repository is None:
        raise typer.BadParameter("--repository names the folder to write")

    def say(step: str) -> None:
        console.print(step, markup=False, soft_wrap=True)

    if target == "cpu":
        if if_needed and up_to_date(checkpoint, repository, target, precision, decoder):
            say(f"{repository}: up to date")
            return
        manifest = run(checkpoint, repository, target, precision, decoder, progress=say)
    else:
        from export.gpu.build import PRECISION, GpuWriter, build_gpu, find_gpu, fits
        from export.gpu.gate import print_checks

        gpu = find_gpu(target)
        old = up_to_date(checkpoint, repository, target, PRECISION, decoder) if if_needed else None
        if old is not None and fits(old, gpu):
            say(f"{repository}: up to date")
            return
        writer = GpuWriter(gpu, repository, fall_back=fall_back, progress=say)
        try:
            manifest = build_gpu(
                checkpoint,
                repository,
                target,
                writer,
                precision=precision,
                decoder=decoder,
                progress=say,
            )
        finally:
            if writer.checks:
                print_checks(writer.checks, console)
    for name, entry in manifest.models.items():
        say(
            f"{name}: {entry.parameters / 1e6:.1f} M values, {entry.gflop:.1f} GFLOP, "
            f"{entry.served_by}"
        )
    say(f"{repository}: ready to serve, weights {manifest.weights_id}")


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
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16 or fp16: of a server elsewhere that decides it by itself."),
    ] = None,
) -> None:
    """Accuracy gate: the served models against PyTorch on real inputs."""
    _require_export()
    from export.gate import LIMITS
    from export.verify import print_table
    from export.verify import verify as run

    if precision is not None:
        _choice(precision, tuple(LIMITS), "--precision")
    results = asyncio.run(run(checkpoint, repository, triton, frames, audio, precision))
    print_table(results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)
