"""``edge-reclass doctor``: what this machine is, what of a bundle it can run, and how to fix what it cannot."""

from __future__ import annotations

from edge_reclass_doctor.command import diagnose, doctor

__all__ = ["diagnose", "doctor"]
