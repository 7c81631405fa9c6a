"""The command line."""

from __future__ import annotations

from edge_reclass.cli.commands import app, main

__all__ = ["app", "main"]
