"""The command line."""

from __future__ import annotations

import os

# Before numpy is imported. Our products are small, and several threads of ours are at work: those of OpenBLAS wait for
# one another, and the features take longer (docs/embed.md). What somebody has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from edge_reclass.cli.commands import app, main

__all__ = ["app", "main"]
