"""Another kind of head against logistic regression, on the same folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from edge_reclass_learn.fit.gain import SURE, Gain, gain
from edge_reclass_learn.fit.judging import Judged, Task

Found = TypeVar("Found")


@dataclass(frozen=True)
class Contest:
    """What another kind of head is worth at one stage; ``gain``'s base are the logistic heads. ``taken``: it won."""

    stage: str
    kind: str
    gain: Gain
    taken: bool


def contests(task: Task, kind: str, logistic: Judged, other: Judged) -> list[Contest]:
    """Compare what both say of the given tracks where nothing stops early.

    An MLP is taken because it was asked for. Trees are taken only where they find more, and that is no chance: what
    they add is paid for with a larger graph.
    """
    own = np.array([not example.remembered for example in task.examples])
    found = []
    for stage in task.heard.inputs:
        given = task.heard.fullest(stage)
        right = [(one.said.logits[stage][given].argmax(axis=1) == task.labels)[own] for one in (logistic, other)]
        compared = gain(right[0].tolist(), right[1].tolist())
        won = compared.new > compared.base and compared.p < SURE
        found.append(Contest(stage, kind, compared, won or kind == "mlp"))
    return found


def with_winners(task: Task, logistic: Judged, other: Judged, found: list[Contest]) -> tuple[Task, Judged]:
    """The task and the judgement with the heads that were taken."""
    taken = {one.stage: one.kind for one in found if one.taken}

    def mixed(ours: Mapping[str, Found], theirs: Mapping[str, Found]) -> dict[str, Found]:
        return {stage: theirs[stage] if stage in taken else one for stage, one in ours.items()}

    judged = replace(
        logistic,
        said=replace(logistic.said, logits=mixed(logistic.said.logits, other.said.logits)),
        temperatures=mixed(logistic.temperatures, other.temperatures),
    )
    return replace(task, kinds=taken), judged
