"""edge-reclass: offline genre re-classification of music libraries, as a staged cascade with early exit.

The embedding API is :class:`Cascade` (see ``cascade.py``), :class:`CascadePool` and :class:`WorkerPool`; every error
raised on purpose is in ``errors.py``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy
from edge_reclass._version import __version__

# From 1.29 on, ONNX Runtime writes an identifier below ~/.cache/Microsoft when a session is opened, and sends events
# to Microsoft over the network. We promise neither to happen; it looks for this variable when it starts.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from edge_reclass.bundle import Bundle
    from edge_reclass.bundle import load as load_bundle
    from edge_reclass.cascade import Cascade
    from edge_reclass.errors import EdgeReclassError, Status, TrackError
    from edge_reclass.run import CascadePool, WorkerLimits, WorkerPool
    from edge_reclass.verdict import Verdict

__all__ = [
    "Bundle",
    "Cascade",
    "CascadePool",
    "EdgeReclassError",
    "Status",
    "TrackError",
    "Verdict",
    "WorkerLimits",
    "WorkerPool",
    "__version__",
    "load_bundle",
]

# Imported when first used: an appliance that asks only for the version, or for one module, pays only for that.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "Bundle": "edge_reclass.bundle",
        "Cascade": "edge_reclass.cascade",
        "CascadePool": "edge_reclass.run",
        "EdgeReclassError": "edge_reclass.errors",
        "Status": "edge_reclass.errors",
        "TrackError": "edge_reclass.errors",
        "Verdict": "edge_reclass.verdict",
        "WorkerLimits": "edge_reclass.run",
        "WorkerPool": "edge_reclass.run",
        "load_bundle": "edge_reclass.bundle:load",
    },
)
