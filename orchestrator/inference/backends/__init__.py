"""Triton backends of this project, each a folder that Triton loads by its name."""
