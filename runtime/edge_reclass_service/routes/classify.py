"""One track in, its verdict out."""

from __future__ import annotations

from edge_reclass_service.described import Described

ROUTES: list[Described] = []
