"""Policies that the harness measures beside the given one: the full ensemble, each stage alone, other orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from edge_reclass.bundle import Manifest
from edge_reclass.cascade import Policy, Step

__all__ = ["ensemble", "needs", "orders", "reordered", "single"]

NEVER = 1.0
"""A threshold that no confidence is above: go on."""


def needs(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """For each stage the other stages whose embeddings its head takes, directly (a head takes no head's output)."""
    return {stage.name: tuple(n for n in stage.head.inputs if n != stage.name) for stage in manifest.stages}


def ensemble(policy: Policy) -> Policy:
    """All stages of ``policy`` for every track, then the vote of its last step."""
    last = policy.steps[-1]
    asked = tuple(Step(step.after, {step.after: 1.0}, NEVER) for step in policy.steps[:-1])
    return Policy(f"{policy.name}-ensemble", policy.vote, (*asked, Step(last.after, last.weights)))


def single(stage: str, needed: Sequence[str]) -> Policy:
    """``stage`` decides alone; the stages ``needed`` by its head run before it and have no vote.

    With the vote ``soft`` and one weight of 1 the verdict's scores are the stage's own probabilities, bit for bit.
    """
    before = tuple(Step(name, {name: 1.0}, NEVER) for name in needed)
    return Policy(f"single-{stage}", "soft", (*before, Step(stage, {stage: 1.0})))


def orders(stages: Sequence[str], needed: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Every order of ``stages`` in which no head comes before an embedding that it takes."""
    for order in permutations(stages):
        if all(need in order[:i] for i, name in enumerate(order) for need in needed.get(name, ())):
            yield order


def reordered(policy: Policy, order: Sequence[str], accepts: Sequence[float]) -> Policy:
    """The family of ``policy``: its stages in another order, with these thresholds after all but the last.

    After each stage the votes are those that the policy's last step gives to the stages so far (the vote divides by
    their sum); a stage that has no weight there votes alone while nothing else may.
    """
    final = policy.steps[-1].weights
    steps = []
    for i, name in enumerate(order):
        weights = {stage: final.get(stage, 0.0) for stage in order[: i + 1]}
        if sum(weights.values()) <= 0:
            weights = {name: 1.0}
        steps.append(Step(name, weights, accepts[i] if i < len(order) - 1 else None))
    return Policy(f"{policy.name}:{'>'.join(order)}", policy.vote, tuple(steps))
