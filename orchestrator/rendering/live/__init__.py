"""Live media: one endless fragmented MP4 a session, idle video and speech on one timeline."""

from orchestrator.rendering.live.idle import IdleClip, forget_idle_clip, idle_clip
from orchestrator.rendering.live.media import SOUND_LAG, Fragment, LiveMedia

__all__ = ["SOUND_LAG", "Fragment", "IdleClip", "LiveMedia", "forget_idle_clip", "idle_clip"]
