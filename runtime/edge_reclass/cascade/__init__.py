"""The cascade: from a bundle and a policy to a verdict for each track."""

from __future__ import annotations

from edge_reclass.cascade.answers import StageAnswer, StepAnswer
from edge_reclass.cascade.cascade import Cascade
from edge_reclass.cascade.opening import SharedModel, load_bundle, open_model
from edge_reclass.cascade.own_genres import GenreMap, genre_map
from edge_reclass.cascade.plan import (
    DEFAULT_BATCH,
    Options,
    Plan,
    choose_policy,
    compile_plan,
    largest_batches,
    policy_entry,
    untrained,
)
from edge_reclass.cascade.policy import Answer, Decision, Policy, Step, decide
from edge_reclass.cascade.stages import Stage, softmax
from edge_reclass.cascade.windowing import count_windows, fill_window, windows

__all__ = [
    "DEFAULT_BATCH",
    "Answer",
    "Cascade",
    "Decision",
    "GenreMap",
    "Options",
    "Plan",
    "Policy",
    "SharedModel",
    "Stage",
    "StageAnswer",
    "Step",
    "StepAnswer",
    "choose_policy",
    "compile_plan",
    "count_windows",
    "decide",
    "fill_window",
    "genre_map",
    "largest_batches",
    "load_bundle",
    "open_model",
    "policy_entry",
    "softmax",
    "untrained",
    "windows",
]
