"""Policies: given the stages' answers so far, stop or go on, and with which answer. Names and numbers only.

To add a vote, write one function with the signature of :func:`soft` and enter it in :data:`VOTES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edge_reclass.bundle.limits import MAX_WEIGHT, MIN_WEIGHT
from edge_reclass.errors import UsageError
from edge_reclass.verdict import ReasonCode


@dataclass(frozen=True)
class Answer:
    """What one stage said: calibrated probabilities, in the order of the genres; they sum to 1.

    ``outside`` says that what the stage heard is like nothing that its head was fitted on. ``says`` are the numbers of
    the genres that its head knows, whose genres are its own; None: all. It ``abstains`` where its head takes the track
    for a genre that the bundle does not have.
    """

    stage: str
    probabilities: tuple[float, ...]
    outside: bool = False
    says: frozenset[int] | None = None
    abstains: bool = False

    @property
    def top(self) -> int:
        """Index of the most probable genre; the first in genre order wins a tie."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """Probability of the most probable genre."""
        return self.probabilities[self.top]


@dataclass(frozen=True)
class Step:
    """After stage ``after`` vote with ``weights``; stop if the confidence is above ``accept`` (strictly).

    ``accept`` is None for the last step only: it always decides. ``windows``: the stage has heard so many of its
    excerpt's windows by then; None: all of them.
    """

    after: str
    weights: Mapping[str, float]
    accept: float | None = None
    windows: int | None = None


@dataclass(frozen=True)
class Policy:
    """Stages in the order in which they run, and how their answers are weighed."""

    name: str
    vote: str
    steps: tuple[Step, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in running order."""
        return tuple(dict.fromkeys(step.after for step in self.steps))

    def windows(self, stage: str) -> tuple[int, ...]:
        """After how many windows ``stage`` is asked before it has heard all of them."""
        return tuple(step.windows for step in self.steps if step.after == stage and step.windows is not None)

    def hears_all(self, stage: str) -> bool:
        """True if ``stage`` is asked after all of its windows too, before the next stage runs."""
        return self.step(stage).windows is None

    def step(self, stage: str, windows: int | None = None) -> Step:
        """The step after so many windows of ``stage``; None: its last one; ValueError if there is none."""
        for step in reversed(self.steps):
            if step.after == stage and windows in (None, step.windows):
                return step
        raise ValueError(f"the policy {self.name} has no step after {_of_stage(stage, windows)}")


@dataclass(frozen=True)
class Decision:
    """Stop or go on; ``genre`` is an index, ``scores`` are the vote's scores in genre order.

    ``code`` says why it stops, or is None where it does not.
    """

    genre: int
    confidence: float
    scores: tuple[float, ...]
    reason: str
    code: ReasonCode | None

    @property
    def stop(self) -> bool:
        """True if no further stage is to be asked."""
        return self.code is not None

    @property
    def unsure(self) -> bool:
        """True if the cascade stops without a genre."""
        return self.code in (ReasonCode.LOW_CONFIDENCE, ReasonCode.OUTSIDE_RANGE)


Vote = Callable[[Sequence[Answer], Mapping[str, float]], tuple[int, tuple[float, ...]]]


def top1(answers: Sequence[Answer], weights: Mapping[str, float]) -> tuple[int, tuple[float, ...]]:
    """Each stage puts weight × confidence on its own top genre; scores are divided by the sum of all weights.

    Two stages that know the same genres and disagree can therefore never reach more than the larger weight. Ties go to
    the genre with the higher confidence of a single stage, then to genre order. For genres that a stage does not know,
    see :func:`_completed`.
    """
    size = len(answers[0].probabilities)
    scores, strongest = [0.0] * size, [0.0] * size
    alone = [tuple(answer.confidence * (g == answer.top) for g in range(size)) for answer in answers]
    for answer, ballot in zip(answers, _completed(answers, alone, weights), strict=True):
        weight = weights.get(answer.stage, 0.0)
        if weight > 0.0:
            scores = [score + weight * value for score, value in zip(scores, ballot, strict=True)]
            strongest[answer.top] = max(strongest[answer.top], answer.confidence)
    total = math.fsum(weights.get(answer.stage, 0.0) for answer in answers)
    genre = max(range(size), key=lambda g: (scores[g], strongest[g], -g))
    return genre, tuple(score / total for score in scores)


def soft(answers: Sequence[Answer], weights: Mapping[str, float]) -> tuple[int, tuple[float, ...]]:
    """Weighted mean of the stages' probabilities; ties go to genre order.

    For genres that a stage does not know, see :func:`_completed`.
    """
    size = len(answers[0].probabilities)
    ballots = _completed(answers, [answer.probabilities for answer in answers], weights)
    given = [weights.get(answer.stage, 0.0) for answer in answers]
    total = math.fsum(given)
    scores = tuple(
        math.fsum(weight * ballot[g] for weight, ballot in zip(given, ballots, strict=True)) / total
        for g in range(size)
    )
    return max(range(size), key=lambda g: (scores[g], -g)), scores


def _completed(
    answers: Sequence[Answer], ballots: Sequence[tuple[float, ...]], weights: Mapping[str, float]
) -> Sequence[tuple[float, ...]]:
    """``ballots`` of the answers, completed by what a stage cannot say: the genres that its head does not know.

    A stage leaves these genres to the stages that know them. It gives each of them the weighted mean of what they give
    it, and divides only the rest among the genres that it knows. So it votes on how the genres that it knows compare
    with one another, and has no say in how they compare with the others: what it never heard of is not improbable.
    Where the others claim more than 1 in all, it follows them. Ballots of stages that know all genres stay as they are.
    """
    if all(answer.says is None for answer in answers):
        return ballots
    size = len(ballots[0])
    mean = []
    for g in range(size):
        knowing = [
            (weights.get(answer.stage, 0.0), ballot[g])
            for answer, ballot in zip(answers, ballots, strict=True)
            if answer.says is None or g in answer.says
        ]
        total = math.fsum(weight for weight, _ in knowing)
        mean.append(math.fsum(weight * value for weight, value in knowing) / total if total else 0.0)
    completed = []
    for answer, ballot in zip(answers, ballots, strict=True):
        says = range(size) if answer.says is None else answer.says
        claimed = math.fsum(mean[g] for g in range(size) if g not in says)
        left = max(0.0, 1.0 - claimed)
        completed.append(tuple(left * ballot[g] if g in says else mean[g] / max(1.0, claimed) for g in range(size)))
    return completed


VOTES: Final[Mapping[str, Vote]] = MappingProxyType({"top1": top1, "soft": soft})


def decide(
    policy: Policy,
    answers: Sequence[Answer],
    *,
    after: str | None = None,
    windows: int | None = None,
    min_confidence: float | None = None,
) -> Decision:
    """Decide after stage ``after`` (default: the last that answered), given the answers so far in running order.

    ``windows``: that stage has heard so many of its windows, of more; None: it has heard all.

    A stage that heard only silence gives no answer, and one that abstains has none for these genres: the others are
    weighed as if the policy did not have it. Where all abstain, their answers are weighed, and never end the cascade
    early. An answer from outside of what a head was fitted on never does so either. Both make the verdict unsure.

    Args:
        min_confidence: below it the verdict is unsure; 0 turns ``unsure`` off altogether; None: no such limit.

    Raises:
        ValueError: there is no answer, the answers are not those of stages up to ``after`` in the policy's order, they
            differ in their number of genres, or the policy has no such step.
    """
    said = [answer.stage for answer in answers]
    after = said[-1] if after is None and said else after
    if not said or after not in policy.stages:
        raise ValueError(f"expected answers of stages of {policy.stages}, got {said} after {after}")
    done = policy.stages[: policy.stages.index(after) + 1]
    if said != [stage for stage in done if stage in said]:
        raise ValueError(f"expected answers of {done} in this order, got {said}")
    if len({len(answer.probabilities) for answer in answers}) != 1:
        raise ValueError(f"answers differ in their number of genres: {[len(a.probabilities) for a in answers]}")
    if voting := [answer for answer in answers if not answer.abstains]:
        answers, said = voting, [answer.stage for answer in voting]
    step = policy.step(said[-1], windows if said[-1] == after else None)
    weights = step.weights if any(step.weights.get(stage, 0.0) for stage in said) else dict.fromkeys(said, 1.0)
    genre, scores = VOTES[policy.vote](answers, weights)
    confidence = scores[genre]
    last = after == policy.stages[-1] and windows is None
    outside = [answer.stage for answer in answers if answer.outside]
    unlike = _outside(outside) if outside else "" if voting else _foreign(said)
    if last:
        reason, code = f"last stage of {policy.name}", ReasonCode.LAST_STAGE
    else:
        if step.accept is None:
            raise ValueError(f"the policy {policy.name} has no accept for {step.after}, which is not its last step")
        above = confidence > step.accept
        left, right = f"{confidence:.4f}", f"{step.accept:g}"
        if float(left) == float(right):  # where rounding hides what decided
            left, right = repr(confidence), repr(step.accept)
        reason = f"{left} {'>' if above else '≤'} {right} after {_of_stage(step.after, step.windows)}"
        low = min_confidence is not None and confidence < min_confidence
        return Decision(
            genre,
            confidence,
            scores,
            reason + (f", but {unlike}" if above and unlike else ""),
            ReasonCode.ACCEPTED if above and not unlike and not low else None,
        )
    if min_confidence != 0.0 and unlike:
        reason, code = unlike, ReasonCode.OUTSIDE_RANGE
    elif min_confidence is not None and confidence < min_confidence:
        code = ReasonCode.LOW_CONFIDENCE
        reason = f"{confidence:.4f} < {min_confidence:g}, the least confidence for a genre"
    return Decision(genre, confidence, scores, reason, code)


def _of_stage(stage: str, windows: int | None) -> str:
    return stage if windows is None else f"{windows} window{'s' * (windows > 1)} of {stage}"


def _outside(stages: Sequence[str]) -> str:
    return f"what {' and '.join(stages)} heard is unlike the music that the bundle was fitted on"


def _foreign(stages: Sequence[str]) -> str:
    return f"{' and '.join(stages)} took it for a genre that the bundle does not have"


def check(policy: Policy, stages: Sequence[str]) -> list[str]:
    """What is wrong with ``policy`` for a bundle with these ``stages``: one sentence each, [] when nothing is."""
    wrong = []
    if policy.vote not in VOTES:
        wrong.append(f"vote: expected one of {', '.join(VOTES)}, got {policy.vote!r}")
    if not policy.steps:
        wrong.append("steps: expected at least one, got none")
    for i, step in enumerate(policy.steps):
        where, last = f"steps[{i}] (after {_of_stage(step.after, step.windows)})", i == len(policy.steps) - 1
        before = policy.steps[:i]
        so_far = tuple(dict.fromkeys(done.after for done in policy.steps[: i + 1]))
        if step.after not in stages:
            wrong.append(f"{where}: expected one of the stages {', '.join(stages)}, got {step.after!r}")
        wrong.extend(f"{where}: {fault}" for fault in _order_faults(step, before))
        if step.windows is not None and last:
            wrong.append(f"{where}: the last step comes after all windows of its stage; remove windows")
        if unknown := sorted(set(step.weights) - set(so_far)):
            wrong.append(f"{where}: weights for {', '.join(unknown)}, but only {', '.join(so_far)} have run by then")
        if any(w != 0 and not MIN_WEIGHT <= w <= MAX_WEIGHT for w in step.weights.values()) or not any(
            step.weights.values()
        ):
            wrong.append(
                f"{where}: expected weights that are 0 or from {MIN_WEIGHT:g} to {MAX_WEIGHT:g} with a sum above 0,"
                f" got {dict(step.weights)}"
            )
        if last and step.accept is not None:
            wrong.append(f"{where}: the last step always decides; remove accept: {step.accept}")
        if not last and step.accept is None:
            wrong.append(f"{where}: needs accept; without it the steps that follow would never run")
        if step.accept is not None and not 0 <= step.accept <= 1:
            wrong.append(f"{where}: expected 0 ≤ accept ≤ 1, got {step.accept}")
    return wrong


def _order_faults(step: Step, before: Sequence[Step]) -> list[str]:
    """What is wrong with ``step`` where it stands, behind the steps ``before``."""
    same = [done for done in before if done.after == step.after]
    if not same:
        return []
    if before[-1].after != step.after:
        return [f"the stage {step.after!r} has run before {before[-1].after!r}; its steps follow one another"]
    heard = same[-1].windows
    if heard is None:
        return [f"the stage {step.after!r} has run before, on all of its windows"]
    if step.windows is not None and step.windows <= heard:
        return [f"windows: expected more than the {heard} of the step before, got {step.windows}"]
    return []


def _legacy(name: str, first: float, second: float) -> Policy:
    """A policy of the project that came before; where its documents state no weights, those of fmj-ev are used."""
    return Policy(
        name,
        "top1",
        (
            Step("fma", {"fma": 1.0}, first),
            Step("mert", {"fma": 0.40, "mert": 0.60}, second),
            Step("jmla", {"fma": 0.25, "mert": 0.35, "jmla": 0.40}),
        ),
    )


# plex-outline escalates *below* its thresholds, so it accepts at them: the next smaller float makes > mean ≥.
PRESETS: Final[Mapping[str, Policy]] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            _legacy("fmj-ev", 0.95, 0.90),
            _legacy("model-notes", 0.85, 0.80),
            _legacy("plex-config", 0.85, 0.75),
            _legacy("plex-outline", math.nextafter(0.8, 0.0), math.nextafter(0.7, 0.0)),
        )
    }
)


def preset(name: str, stages: Sequence[str]) -> Policy:
    """The legacy policy ``name`` for a bundle with these ``stages``.

    Raises:
        UsageError: no such preset, or the bundle's stages are not fma, mert and jmla.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}: expected one of {', '.join(PRESETS)}")
    policy = PRESETS[name]
    if set(stages) != set(policy.stages):
        raise UsageError(
            f"the policy {name!r} is made for a bundle with the stages {', '.join(policy.stages)}; "
            f"this bundle has {', '.join(stages)}"
        )
    return policy
