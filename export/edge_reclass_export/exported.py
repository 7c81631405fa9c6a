"""What a recipe gives: a checked ONNX model, what a manifest has to say about it, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_reclass.bundle import ReferenceVectors


@dataclass(frozen=True)
class ExportedEncoder:
    """One encoder in memory; ``rate`` to ``dim`` are the manifest's keys of the same names.

    ``name`` is the stage's and the files' name by default. ``model`` are the bytes of the float32 graph, ``others``
    those of its other precisions. ``reference`` are the float32 graph's reference vectors where they are known
    already; else they are computed when a bundle is written. ``licence`` is the text that has to travel with the
    weights, ``licence_file`` its name in a bundle; both are empty where the user's checkpoint came without one.
    """

    name: str
    model: bytes
    rate: int
    window_samples: int
    hop_samples: int
    short: Literal["repeat", "repeat_centered", "reject"]
    dim: int
    provenance: Mapping[str, object]
    licence_file: str = ""
    licence: str = ""
    others: Mapping[Literal["fp16"], bytes] = field(default_factory=dict)
    reference: ReferenceVectors | None = None
