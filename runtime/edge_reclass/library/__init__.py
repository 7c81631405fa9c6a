"""A library: what is known of its tracks (the state), tags, review, playlists, organising, watching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy

if TYPE_CHECKING:
    from edge_reclass.library.basis import Again, Basis
    from edge_reclass.library.rows import TrackRow, Wanted
    from edge_reclass.library.scanning import Shard, Work
    from edge_reclass.library.state import State
    from edge_reclass.library.tags import FileTags
    from edge_reclass.library.tags import read as read_tags
    from edge_reclass.library.update import Updater

_HOMES = {
    "basis": ["Again", "Basis"],
    "rows": ["TrackRow", "Wanted"],
    "scanning": ["Shard", "Work"],
    "state": ["State"],
    "tags": ["FileTags"],
    "update": ["Updater"],
}

__all__ = ["Again", "Basis", "FileTags", "Shard", "State", "TrackRow", "Updater", "Wanted", "Work", "read_tags"]

__getattr__, __dir__ = lazy(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}
    | {"read_tags": f"{__name__}.tags:read"},
)
