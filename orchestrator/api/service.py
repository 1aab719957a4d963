"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.api.admission import Admission
from orchestrator.errors import UnavailableError
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.sessions.registry import Sessions


@dataclass
class Service:
    """What the routes work with; ``renderer`` is None until Triton is ready.

    Attributes:
        settings: of the process.
        telemetry: metrics.
        admission: places for renders.
        renderer: renders; set when Triton answers.
        sessions: live ones; set with it.
    """

    settings: Settings
    telemetry: Telemetry
    admission: Admission
    renderer: Renderer | None = None
    sessions: Sessions | None = None

    def require_renderer(self) -> Renderer:
        """The renderer.

        Raises:
            UnavailableError: Triton is still starting.
        """
        if self.renderer is None:
            raise UnavailableError("Triton is still starting", remedy="try again in a few seconds")
        return self.renderer
