"""From tracks to verdicts on the disk: where tracks come from, who classifies them, where verdicts go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy

if TYPE_CHECKING:
    from edge_reclass.run.lanes import CascadePool
    from edge_reclass.run.output import ReaderLeft, json_text, lenient, open_output, printable
    from edge_reclass.run.output_file import refuse_inputs
    from edge_reclass.run.sources import find_tracks, listed_paths

__all__ = [
    "CascadePool",
    "ReaderLeft",
    "find_tracks",
    "json_text",
    "lenient",
    "listed_paths",
    "open_output",
    "printable",
    "refuse_inputs",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CascadePool": "edge_reclass.run.lanes",
        "ReaderLeft": "edge_reclass.run.output",
        "json_text": "edge_reclass.run.output",
        "lenient": "edge_reclass.run.output",
        "open_output": "edge_reclass.run.output",
        "printable": "edge_reclass.run.output",
        "refuse_inputs": "edge_reclass.run.output_file",
        "find_tracks": "edge_reclass.run.sources",
        "listed_paths": "edge_reclass.run.sources",
    },
)
