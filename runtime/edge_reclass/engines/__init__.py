"""Engines: what one belongs to, where it lies, whether it may be loaded, and which one a stage runs."""

from __future__ import annotations

from edge_reclass.engines.choice import ENGINE_PRECISIONS, EngineState, GraphChoice, choose_engines, engine_states
from edge_reclass.engines.record import (
    BatchCheck,
    EngineKey,
    EngineRecord,
    Flavour,
    Profile,
    Rejected,
    Target,
    Verification,
    describe_target,
    differences,
    target_for,
)
from edge_reclass.engines.store import (
    PLAN,
    RECORD,
    Found,
    StoredEngine,
    engine_command,
    engines_folder,
    stored_engines,
    survey,
)
from edge_reclass.engines.trust import ENGINES_VARIABLE, make_secret

__all__ = [
    "ENGINES_VARIABLE",
    "ENGINE_PRECISIONS",
    "PLAN",
    "RECORD",
    "BatchCheck",
    "EngineKey",
    "EngineRecord",
    "EngineState",
    "Flavour",
    "Found",
    "GraphChoice",
    "Profile",
    "Rejected",
    "StoredEngine",
    "Target",
    "Verification",
    "choose_engines",
    "describe_target",
    "differences",
    "engine_command",
    "engine_states",
    "engines_folder",
    "make_secret",
    "stored_engines",
    "survey",
    "target_for",
]
