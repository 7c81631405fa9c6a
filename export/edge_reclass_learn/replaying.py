"""What a policy would have said of recorded tracks, step by step as a cascade goes, and what that would have cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Answer, Decision, Policy, Step, decide
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs

NEVER = 1.0
"""No confidence is above it."""
NOTHING = -1
"""In place of a genre: unsure, or nothing heard."""


@dataclass(frozen=True)
class Replay:
    """What a policy would have said of each track: ``genre`` (number, or NOTHING), ``cost``, and where it stopped.

    ``stops[i]``: stage, and windows heard of it if the stop is before all of them; None where nothing was heard.
    """

    genre: NDArray[np.int64]
    cost: NDArray[np.float64]
    stops: tuple[tuple[str, int | None] | None, ...]


def everything(policy: Policy) -> Policy:
    """All stages of ``policy``, with all of their windows, for every track, then the vote of its last step."""
    asked = tuple(Step(name, {name: 1.0}, NEVER) for name in policy.stages[:-1])
    return Policy(f"{policy.name}-full", policy.vote, (*asked, Step(policy.steps[-1].after, policy.steps[-1].weights)))


def replay(answers: Answers, policy: Policy, costs: Costs | None = None) -> Replay:
    """What ``policy`` would have said and cost on every track, step by step as a cascade goes.

    Raises:
        UsageError: the record lacks one of the policy's stages or counts of windows.
    """
    costs = Costs.measured(answers) if costs is None else costs
    for step in policy.steps:
        known = {facts.name: (*facts.windows, None) for facts in answers.stages}
        if step.windows not in known.get(step.after, ()):
            what = f"{step.after}, {'all' if step.windows is None else step.windows} windows"
            raise UsageError(f"the policy {policy.name} asks {what}, of which there are no answers")
    genre, stops = np.full(len(answers.tracks), NOTHING), []
    for i in range(len(answers.tracks)):
        stop, said = None, NOTHING
        for stage, windows, decision in _walk(answers, policy, i):
            stop = (stage, windows)
            said = NOTHING if decision.unsure else decision.genre
        genre[i] = said
        stops.append(stop)
    cost = costs.decode.copy()
    for i, stop in enumerate(stops):
        last = policy.stages[-1] if stop is None else stop[0]
        heard = policy.stages[: policy.stages.index(last) + 1]
        cost[i] += sum(costs.resample[signal][i] for signal in {answers.facts(name).signal for name in heard})
        cost[i] += sum(costs.until[name][policy.step(name).windows][i] for name in heard[:-1])
        cost[i] += costs.until[last][None if stop is None else stop[1]][i]
    return Replay(genre, cost, tuple(stops))


def _walk(answers: Answers, policy: Policy, track: int) -> Iterator[tuple[str, int | None, Decision]]:
    """Each decision of a cascade on this track, up to the one that stops it."""
    given: dict[str, Answer] = {}
    for stage in policy.stages:
        *early, last = answers.tracks[track].stages[stage].said
        wanted = policy.windows(stage)
        asked = [said for said in early if said.windows in wanted]
        if policy.hears_all(stage) or not asked or asked[-1].windows < wanted[-1]:
            asked.append(last)
        for said in asked:
            if (answer := answers.answer(stage, said)) is not None:
                given[stage] = answer
            if given:
                windows = None if said is last else said.windows
                decision = decide(
                    policy,
                    tuple(given.values()),
                    after=stage,
                    windows=windows,
                    min_confidence=answers.min_confidence,
                )
                yield stage, windows, decision
                if decision.stop:
                    return
