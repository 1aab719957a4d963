"""Thin adapters: HTTP."""
