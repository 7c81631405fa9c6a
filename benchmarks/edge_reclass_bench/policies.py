"""Policies that the harness measures beside the given one: the full ensemble, and each stage alone."""

from __future__ import annotations

from collections.abc import Sequence

from edge_reclass.bundle import Manifest
from edge_reclass.cascade import Policy, Step

NEVER = 1.0
"""A threshold that no confidence is above: go on."""


def needs(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """For each stage the other stages whose embeddings its head takes, directly (a head takes no head's output)."""
    return {stage.name: tuple(n for n in stage.head.inputs if n != stage.name) for stage in manifest.stages}


def ensemble(policy: Policy) -> Policy:
    """All stages of ``policy``, with all of their windows, for every track, then the vote of its last step."""
    last = policy.steps[-1]
    asked = tuple(Step(name, {name: 1.0}, NEVER) for name in policy.stages[:-1])
    return Policy(f"{policy.name}-ensemble", policy.vote, (*asked, Step(last.after, last.weights)))


def single(stage: str, needed: Sequence[str]) -> Policy:
    """``stage`` decides alone; the stages ``needed`` by its head run before it and have no vote.

    With the vote ``soft`` and one weight of 1 the verdict's scores are the stage's own probabilities, bit for bit.
    """
    before = tuple(Step(name, {name: 1.0}, NEVER) for name in needed)
    return Policy(f"single-{stage}", "soft", (*before, Step(stage, {stage: 1.0})))
