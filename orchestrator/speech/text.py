"""What every speech engine refuses or leaves out of a text, whichever engine it is."""

from __future__ import annotations

import unicodedata

from orchestrator.errors import UsageError


def speakable(text: str, max_chars: int) -> str:
    """A text as a speech engine gets it: control characters become spaces.

    Args:
        text: what to say.
        max_chars: length allowed.

    Raises:
        UsageError: there is nothing in it that can be said, or it is too long.
    """
    if len(text) > max_chars:
        raise UsageError(
            f"the text has {len(text)} characters, more than {max_chars}",
            remedy="shorten it, or raise MUSETALK_MAX_TEXT_CHARS",
        )
    # Cs: halves of surrogate pairs, which no encoding takes.
    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).strip()
    if not any(c.isalnum() for c in clean):
        raise UsageError("the text has nothing that can be said")
    return clean
