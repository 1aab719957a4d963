"""What counts as set, and the options of the command line that come before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.replies.embedded import EmbeddedResponder
from orchestrator.replies.responder import responder
from orchestrator.settings import Settings


def test_an_empty_variable_counts_as_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("MUSETALK_GRPC_PORT=\n")
    for name in ("TRITON", "LLM_BASE_URL", "LLM_API_KEY", "MAX_TALKERS"):
        monkeypatch.setenv(f"MUSETALK_{name}", "")
    settings = Settings()
    assert settings.triton is None
    assert settings.grpc_port is None
    assert settings.max_talkers is None
    # As docker-compose.yml has it where nobody names a language model.
    assert isinstance(responder(settings), EmbeddedResponder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["triton", "--grpc-port", "65536"],
        ["triton", "--http-port", "-1"],
        ["triton", "--metrics-port", "65536"],
        ["serve", "--port", "65536"],
        ["serve", "--grpc-port", "-1"],
        ["serve", "--triton", ""],
        ["speak", "Hello.", "--fps", "50"],
        ["speak", "Hello.", "--triton", ""],
        ["speak"],
    ],
)
def test_an_option_that_cannot_be_is_a_matter_of_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
