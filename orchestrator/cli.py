"""The ``musetalk`` command: arguments in, exit status out; the work is done elsewhere.

Exit status 0, 1 (failed, with one clear line), 2 (usage).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import MuseTalkError

app = typer.Typer(
    name="musetalk",
    help="Serve MuseTalk talking avatars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
avatar_app = typer.Typer(help="Prepare and manage avatars.", no_args_is_help=True)
app.add_typer(avatar_app, name="avatar")
keys_app = typer.Typer(help="Make and remove API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

TritonOption = Annotated[
    str | None,
    typer.Option("--triton", metavar="HOST:PORT", help="Use this Triton, not the embedded one."),
]
RepositoryOption = Annotated[
    Path | None,
    typer.Option("--repository", help="Model repository of the embedded Triton."),
]

PORTS = {"min": 0, "max": 65535}


def _override(**values: object) -> None:
    """Let the command line win over the environment, before the settings are read."""
    for name, value in values.items():
        if value == "":  # in the environment that would mean: not set
            raise typer.BadParameter(f"--{name.replace('_', '-')} is empty")
        if value is not None:
            os.environ[f"MUSETALK_{name.upper()}"] = str(value)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(**PORTS, help="Port to listen on.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(**PORTS, help="Port of the gRPC API, if any.")
    ] = None,
    triton: TritonOption = None,
    repository: RepositoryOption = None,
) -> None:
    """Run the service: Triton, HTTP API, web page, and gRPC API if it has a port."""
    _override(host=host, port=port, grpc_port=grpc_port, triton=triton, repository=repository)
    from orchestrator.serve import serve as run
    from orchestrator.settings import settings

    raise typer.Exit(run(settings()))


@app.command()
def speak(
    text: Annotated[str | None, typer.Argument(help="What the avatar says.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Speech to use instead of a text.")] = None,
    avatar: Annotated[
        str | None, typer.Option(help="Name of an avatar, or a picture or video file.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="MP4 to write.")] = Path(
        "out/speak.mp4"
    ),
    language: Annotated[str | None, typer.Option(help="Of the text: en or fr.")] = None,
    fps: Annotated[int | None, typer.Option(min=8, max=49, help="Frames a second.")] = None,
    consent: Annotated[
        str | None, typer.Option(help="Who agreed to this use of their face; for a file.")
    ] = None,
    triton: TritonOption = None,
    repository: RepositoryOption = None,
) -> None:
    """Render one video from a text or from recorded speech."""
    if (text is None) == (audio is None):
        raise typer.BadParameter("give either TEXT or --audio FILE")
    _override(triton=triton, repository=repository, fps=fps)
    from orchestrator.settings import settings
    from orchestrator.speak import speak as run

    run(
        settings(),
        text=text,
        audio=audio,
        avatar=avatar,
        output=output,
        consent=consent,
        language=language,
    )


@app.command()
def triton(
    repository: RepositoryOption = None,
    grpc_port: Annotated[int, typer.Option(**PORTS, help="0 takes a free port.")] = 0,
    http_port: Annotated[int, typer.Option(**PORTS, help="0 takes a free port.")] = 0,
    metrics_port: Annotated[int, typer.Option(**PORTS, help="0 takes a free port.")] = 0,
) -> None:
    """Run only the embedded Triton, on loopback."""
    _override(repository=repository)
    from orchestrator.inference import run_triton
    from orchestrator.settings import settings

    raise typer.Exit(run_triton(settings().repository, grpc_port, http_port, metrics_port))


@app.command()
def migrate() -> None:
    """Bring the database of the video jobs to this version."""
    # Its import tells the migration of the table of the keys' usage.
    from orchestrator.api import usage  # noqa: F401
    from orchestrator.jobs.migrate import migrate as run
    from orchestrator.settings import settings

    run(settings())
    typer.echo("the database is up to date")


@app.command()
def doctor() -> None:
    """Check this machine; each line is OK or says what to do."""
    from orchestrator.doctor import run
    from orchestrator.settings import settings

    raise typer.Exit(run(settings()))


@avatar_app.command("add")
def avatar_add(
    source: Annotated[Path, typer.Argument(help="Picture or video of one person.")],
    name: Annotated[str, typer.Option(help="Name to find it by.")],
    consent: Annotated[str, typer.Option(help="Who agreed to this use of their face, and how.")],
    triton: TritonOption = None,
    repository: RepositoryOption = None,
) -> None:
    """Prepare an avatar from a picture or a video."""
    _override(triton=triton, repository=repository)
    from orchestrator.settings import settings
    from orchestrator.speak import avatar_add as run

    run(settings(), source=source, name=name, consent=consent)


@avatar_app.command("list")
def avatar_list() -> None:
    """List the prepared avatars."""
    from orchestrator.settings import settings
    from orchestrator.speak import avatar_list as run

    run(settings())


@avatar_app.command("show")
def avatar_show(
    name: str,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")],
) -> None:
    """Write a contact sheet of an avatar's boxes and masks."""
    from orchestrator.settings import settings
    from orchestrator.speak import avatar_show as run

    run(settings(), name=name, output=output)


@avatar_app.command("remove")
def avatar_remove(name: str) -> None:
    """Delete an avatar."""
    from orchestrator.settings import settings
    from orchestrator.speak import avatar_remove as run

    run(settings(), name=name)


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    sessions: Annotated[int, typer.Option(min=0, help="Live sessions at a time.")] = 4,
    jobs: Annotated[int, typer.Option(min=0, help="Unfinished video jobs at a time.")] = 20,
    video_seconds: Annotated[
        int, typer.Option(min=0, help="Seconds of video in a UTC day.")
    ] = 3600,
) -> None:
    """Make a key and print it, once."""
    from orchestrator.api.key_commands import add
    from orchestrator.settings import settings

    add(settings(), name=name, sessions=sessions, jobs=jobs, video_seconds=video_seconds)


@keys_app.command("list")
def keys_list() -> None:
    """List the keys, their limits and what they used today."""
    from orchestrator.api.key_commands import show
    from orchestrator.settings import settings

    show(settings())


@keys_app.command("remove")
def keys_remove(name: Annotated[str, typer.Argument(help="Name or id of the key.")]) -> None:
    """Make a key useless, from the next request on."""
    from orchestrator.api.key_commands import remove
    from orchestrator.settings import settings

    remove(settings(), name=name)


def _add_export() -> None:
    """Attach ``musetalk export``: its command line imports no torch until a command runs."""
    module = importlib.import_module("export.cli")
    app.add_typer(module.app, name="export", help="Checkpoint to Triton repository.")


def main() -> None:
    """Entry point of the console script."""
    # Before NumPy is loaded: OpenBLAS's threads spin for 50 ms after each product, on a core that
    # the networks need then. The service's own products are small (mel, resampling).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _add_export()
    try:
        app()
    except MuseTalkError as error:
        print(f"musetalk: {error}", file=sys.stderr)  # noqa: T201 -- the command's own output
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
