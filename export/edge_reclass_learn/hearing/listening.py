"""What a bundle's policies ask of its stages: which of them, after how many windows, and with which embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_reclass.bundle import Bundle, Manifest
from edge_reclass.cascade import Policy, Step, choose_policy
from edge_reclass.errors import UsageError

Asked = tuple[str, int | None]
"""A stage, and after how many of its windows; None: all."""
Given = tuple[Asked, ...]
"""What a head is given: each of its inputs, after how many windows."""


@dataclass(frozen=True)
class Listening:
    """All that the policies of a bundle ask.

    inputs: by stage in running order, the stages whose embeddings its head takes
    counts: by stage, after how many windows it is asked, None for all, in ascending order
    givens: by stage, what its head is given by one or another policy; the last is the fullest
    policies: of the bundle, the default one first
    hearing: a policy that hears all of that, without an exit
    """

    inputs: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, tuple[int | None, ...]]
    givens: Mapping[str, tuple[Given, ...]]
    policies: Mapping[str, Policy]
    hearing: Policy

    def given(self, policy: Policy, number: int) -> Given:
        """What the head of the stage of the policy's step ``number`` is given there."""
        return _given(policy, number, self.inputs[policy.steps[number].after])

    @property
    def usual(self) -> dict[str, int | None]:
        """By stage, after how many windows the default policy asks it last; as in ``fullest`` where it does not."""
        policy = next(iter(self.policies.values()))
        asked = {stage: policy.step(stage).windows for stage in policy.stages}
        return {stage: dict(self.fullest(stage))[stage] for stage in self.inputs} | asked

    def fullest(self, stage: str) -> Given:
        """What the stage's head is given where nothing stops early."""
        return self.givens[stage][-1]


def listening(bundle: Bundle) -> Listening:
    """What the policies of ``bundle`` ask.

    Raises:
        BundleError: a policy does not fit the stages.
        UsageError: no head takes what one of the encoders makes.
    """
    manifest = bundle.manifest
    order = running_order(manifest)
    inputs = {name: tuple(manifest.stage(name).head.inputs) for name in order}
    names = sorted(manifest.policies, key=lambda name: name != manifest.default_policy)
    policies = {name: choose_policy(bundle, name) for name in names}
    givens: dict[str, set[Given]] = {name: set() for name in order}
    for policy in policies.values():
        for number, step in enumerate(policy.steps):
            givens[step.after].add(_given(policy, number, inputs[step.after]))
    for name in order:
        if not givens[name]:  # no policy asks it
            givens[name].add(tuple((one, None) for one in inputs[name]))
    sorted_givens = {name: tuple(sorted(found, key=_fullness)) for name, found in givens.items()}
    counts = {
        name: tuple(
            sorted({c for found in sorted_givens.values() for g in found for n, c in g if n == name}, key=_after)
        )
        for name in order
    }
    if unused := [name for name in order if not counts[name]]:
        raise UsageError(f"{bundle.root}: expected heads that take the embeddings of every stage; none takes those of"
                         f" {', '.join(unused)}")  # fmt: skip
    steps = [Step(name, {name: 1.0}, 1.0, count) for name in order for count in counts[name]]
    steps[-1] = Step(steps[-1].after, steps[-1].weights, None, steps[-1].windows)
    return Listening(inputs, counts, sorted_givens, policies, Policy("fit", "soft", tuple(steps)))


def _given(policy: Policy, number: int, inputs: tuple[str, ...]) -> Given:
    step = policy.steps[number]
    return tuple((one, step.windows if one == step.after else policy.step(one).windows) for one in inputs)


def running_order(manifest: Manifest) -> list[str]:
    """The stages in the manifest's order, each after those whose embeddings its head takes."""
    needs = {stage.name: set(stage.head.inputs) - {stage.name} for stage in manifest.stages}
    order: list[str] = []
    while ready := [name for name in needs if name not in order and needs[name] <= set(order)]:
        order.append(ready[0])
    return order


def _after(count: int | None) -> float:
    return float("inf") if count is None else count


def _fullness(given: Given) -> tuple[float, ...]:
    return tuple(_after(count) for _, count in reversed(given))
