"""From tracks to verdicts on the disk: sources of tracks, runners that classify them, sinks of verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy

if TYPE_CHECKING:
    from edge_reclass.run.lanes import CascadePool, LaneRunner
    from edge_reclass.run.notify import alive as notify_alive
    from edge_reclass.run.notify import ready as notify_ready
    from edge_reclass.run.notify import stopping as notify_stopping
    from edge_reclass.run.output import StdoutClosed, open_output
    from edge_reclass.run.output_file import refuse_inputs
    from edge_reclass.run.runner import Observer, Runner, run
    from edge_reclass.run.sinks import Sink, TextSink
    from edge_reclass.run.sources import Source, Track, TrackSearch, listed_paths
    from edge_reclass.run.text import json_text, lenient, printable
    from edge_reclass.run.workers.pool import WorkerPool, default_workers
    from edge_reclass.run.workers.process import WorkerLimits

_HOMES = {
    "lanes": ["CascadePool", "LaneRunner"],
    "output": ["StdoutClosed", "open_output"],
    "output_file": ["refuse_inputs"],
    "runner": ["Observer", "Runner", "run"],
    "sinks": ["Sink", "TextSink"],
    "sources": ["Source", "Track", "TrackSearch", "listed_paths"],
    "text": ["json_text", "lenient", "printable"],
    "workers.pool": ["WorkerPool", "default_workers"],
    "workers.process": ["WorkerLimits"],
}

__all__ = [
    "CascadePool",
    "LaneRunner",
    "Observer",
    "Runner",
    "Sink",
    "Source",
    "StdoutClosed",
    "TextSink",
    "Track",
    "TrackSearch",
    "WorkerLimits",
    "WorkerPool",
    "default_workers",
    "json_text",
    "lenient",
    "listed_paths",
    "notify_alive",
    "notify_ready",
    "notify_stopping",
    "open_output",
    "printable",
    "refuse_inputs",
    "run",
]

__getattr__, __dir__ = lazy(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}
    | {f"notify_{what}": f"{__name__}.notify:{what}" for what in ("alive", "ready", "stopping")},
)
