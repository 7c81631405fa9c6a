"""Engines: what one belongs to, where it lies, whether it may be loaded, and which one a stage runs."""

from __future__ import annotations

from edge_reclass.engines.choice import ENGINE_PRECISIONS, EngineState, GraphChoice, choose_engines, engine_states
from edge_reclass.engines.record import (
    FLAGS,
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
    engine_bytes,
    engines_folder,
    read_record,
    stored_engines,
    survey,
)
from edge_reclass.engines.trust import ENGINES_VARIABLE, StoreKey, default_store, make_secret, open_store

__all__ = [
    "ENGINES_VARIABLE",
    "ENGINE_PRECISIONS",
    "FLAGS",
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
    "StoreKey",
    "StoredEngine",
    "Target",
    "Verification",
    "choose_engines",
    "default_store",
    "describe_target",
    "differences",
    "engine_bytes",
    "engine_states",
    "engines_folder",
    "make_secret",
    "open_store",
    "read_record",
    "stored_engines",
    "survey",
    "target_for",
]
