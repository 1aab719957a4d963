"""Live sessions: one viewer, one media timeline, a sequence of turns."""
