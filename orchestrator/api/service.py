"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.api.access import Access
from orchestrator.api.admission import Admission
from orchestrator.api.live_places import LivePlaces
from orchestrator.errors import UnavailableError
from orchestrator.settings import Settings
from orchestrator.speech.tts import require_voice
from orchestrator.telemetry import Telemetry

if TYPE_CHECKING:
    from orchestrator.jobs.videos import VideoJobs
    from orchestrator.rendering.library import Library
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
        draining: the service is about to stop and takes no new work.
        videos: video jobs; set with it.
        library: avatars by owner; set with it.
        access: lets callers in.
        places: how many live sessions each key has.
    """

    settings: Settings
    telemetry: Telemetry
    admission: Admission
    renderer: Renderer | None = None
    sessions: Sessions | None = None
    draining: bool = False
    videos: VideoJobs | None = None
    library: Library | None = None
    access: Access = field(init=False)
    places: LivePlaces = field(init=False)

    def __post_init__(self) -> None:
        """Read the API keys.

        Raises:
            SetupError: their file is damaged.
        """
        self.access = Access(self.settings)
        self.places = LivePlaces(self.access)

    def require_renderer(self) -> Renderer:
        """The renderer.

        Raises:
            UnavailableError: Triton is still starting.
        """
        if self.renderer is None:
            raise UnavailableError("Triton is still starting", remedy="try again in a few seconds")
        return self.renderer

    def require_library(self) -> Library:
        """The avatars.

        Raises:
            UnavailableError: Triton is still starting.
        """
        if self.library is None:
            raise UnavailableError("Triton is still starting", remedy="try again in a few seconds")
        return self.library

    def require_voice(self, wanted: str | None) -> None:
        """Refuse a voice that there is not; empty or None takes the one that there is.

        Raises:
            UsageError: it is another one.
            UnavailableError: Triton is still starting.
        """
        if wanted:
            require_voice(wanted, self.require_renderer().voice.name)

    def require_videos(self) -> VideoJobs:
        """The video jobs.

        Raises:
            UnavailableError: Triton is still starting.
        """
        if self.videos is None:
            raise UnavailableError("Triton is still starting", remedy="try again in a few seconds")
        return self.videos
