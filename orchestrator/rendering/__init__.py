"""Turn speech and an avatar into video: schedule, composite, encode."""
