"""One track → what every stage says of it at every step, and what that takes: the parts of ``learn.answers``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Policy, Step, StepAnswer, choose_policy
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Heard, Said, StageFacts
from edge_reclass_learn.hearing.listening import running_order
from edge_reclass_learn.replaying import NEVER


def asking(bundle: Bundle, counts: Iterable[int]) -> Policy:
    """A policy with a step after each of ``counts`` of windows that a stage has, for all stages of the bundle.

    Stages come in the manifest's order, each after those that its head needs.
    """
    order, steps = running_order(bundle.manifest), list[Step]()
    for name in order:
        early = [Step(name, {name: 1.0}, NEVER, count) for count in sorted(set(counts))]
        steps += [step for step in early if _fits(bundle, [*steps, step, Step(name, {name: 1.0})])]
        steps.append(Step(name, {name: 1.0}, NEVER))
    return Policy("order", "soft", (*steps[:-1], Step(order[-1], {order[-1]: 1.0})))


def _fits(bundle: Bundle, steps: Sequence[Step]) -> bool:
    try:
        choose_policy(bundle, Policy("order", "soft", tuple(steps)))
    except UsageError:  # the stage does not have so many windows
        return False
    return True


def stage_facts(cascade: Cascade, name: str) -> StageFacts:
    """What holds for the stage ``name`` of an opened cascade, whatever the track."""
    stage = next(stage for stage in cascade.plan.stages if stage.name == name)
    return StageFacts(
        name=name,
        signal=f"{stage.signal.rate or 'native'}, {stage.signal.excerpt}",
        windows=list(cascade.plan.policy.windows(name)),
        needs=[other for other in stage.head_inputs if other != name],
        whole=stage.encoder.window_samples is None,
        says=None if stage.map is None else [cascade.plan.genres[genre] for genre in sorted(stage.map.says)],
    )


def stage_heard(said: Sequence[StepAnswer]) -> Heard:
    """The record of one stage's answers, at least one, in the order in which it gave them.

    Where the policy has no step after all windows, the last one says what the stages after it are given instead.
    """
    made = [
        Said(
            windows=answer.windows.heard,
            probabilities=None if answer.probabilities is None else list(answer.probabilities),
            outside=answer.outside,
            abstains=answer.abstains,
            cost=answer.milliseconds,
        )
        for answer in said
    ]
    if not said[-1].complete:
        made.append(replace(made[-1], cost=0.0))
    return Heard(
        of=said[0].windows.of,
        seconds=said[0].excerpt.seconds,
        resample=sum(answer.resample_milliseconds for answer in said),
        said=made,
    )
