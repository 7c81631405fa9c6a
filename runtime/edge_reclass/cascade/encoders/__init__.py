"""Encoders: samples of one excerpt in, one embedding out. A module for each kind, entered in ``bundle.encoders.KINDS``.

Such a module has ``Entry``, what the manifest says of the kind, and ``open_encoder(request) -> Encoder``.
"""

from __future__ import annotations

from importlib import import_module

from edge_reclass.bundle.encoders import KINDS
from edge_reclass.cascade.encoders.base import Encoder, OpenRequest, Parts, Progress

__all__ = ["Encoder", "OpenRequest", "Parts", "Progress", "open_encoder"]


def open_encoder(request: OpenRequest) -> Encoder:
    """Open the encoder of one stage, whatever its kind.

    Raises:
        EngineError: a file cannot be opened, or its shapes do not fit the manifest.
    """
    entry = request.stage.encoder
    module = next(m for m in map(import_module, KINDS.values()) if isinstance(entry, m.Entry))
    encoder: Encoder = module.open_encoder(request)
    return encoder
