"""Clients of ``edge-reclass serve``, for programs that do not want a cascade of their own.

``Client`` waits, ``AsyncClient`` is for asyncio; both give the :class:`edge_reclass.Verdict` that the cascade gives.
Only the standard library and msgspec are imported; numpy for ``classify_pcm``.
"""

from __future__ import annotations

from edge_reclass.client.aio import AsyncClient
from edge_reclass.client.events import Event
from edge_reclass.client.records import BundleServed, Change, KnownTrack, Page, Scan, Version
from edge_reclass.client.sync import Client

__all__ = ["AsyncClient", "BundleServed", "Change", "Client", "Event", "KnownTrack", "Page", "Scan", "Version"]
