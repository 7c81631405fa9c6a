"""A library: what is known of its tracks (the state), tags, review, playlists, organising, watching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy

if TYPE_CHECKING:
    from edge_reclass.library.basis import Again, Basis
    from edge_reclass.library.rows import TrackRow, Wanted
    from edge_reclass.library.scanning import Shard, Work
    from edge_reclass.library.state import State, absolute, now
    from edge_reclass.library.tags import FileTags
    from edge_reclass.library.tags import read as read_tags
    from edge_reclass.library.tags.approved import PlanRequest, PlanStep, TagPlan, TagPlans
    from edge_reclass.library.update import Updater
    from edge_reclass.library.watching.resident import Habits, Resident

_HOMES = {
    "basis": ["Again", "Basis"],
    "rows": ["TrackRow", "Wanted"],
    "scanning": ["Shard", "Work"],
    "state": ["State", "absolute", "now"],
    "tags": ["FileTags"],
    "tags.approved": ["PlanRequest", "PlanStep", "TagPlan", "TagPlans"],
    "update": ["Updater"],
    "watching.resident": ["Habits", "Resident"],
}

__all__ = [
    "Again",
    "Basis",
    "FileTags",
    "Habits",
    "PlanRequest",
    "PlanStep",
    "Resident",
    "Shard",
    "State",
    "TagPlan",
    "TagPlans",
    "TrackRow",
    "Updater",
    "Wanted",
    "Work",
    "absolute",
    "now",
    "read_tags",
]

__getattr__, __dir__ = lazy(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}
    | {"read_tags": f"{__name__}.tags:read"},
)
