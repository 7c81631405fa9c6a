"""The cascade: from a bundle and a policy to a verdict for each track."""

from __future__ import annotations

from edge_reclass.cascade.cascade import Cascade
from edge_reclass.cascade.opening import Options, Shared, load_bundle, open_with
from edge_reclass.cascade.plan import DEFAULT_BATCH, Plan, choose_policy, compile_plan, untrained
from edge_reclass.cascade.policy import Answer, Decision, Policy, Step, decide
from edge_reclass.cascade.stages import Stage, softmax
from edge_reclass.cascade.windowing import count_windows, fill_window, windows

__all__ = [
    "DEFAULT_BATCH",
    "Answer",
    "Cascade",
    "Decision",
    "Options",
    "Plan",
    "Policy",
    "Shared",
    "Stage",
    "Step",
    "choose_policy",
    "compile_plan",
    "count_windows",
    "decide",
    "fill_window",
    "load_bundle",
    "open_with",
    "softmax",
    "untrained",
    "windows",
]
