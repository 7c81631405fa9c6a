"""What is told of a proposal: beside the bundle's own policies, and where each of them stops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_reclass.cascade import Policy
from edge_reclass_learn import Answers, Goal, Judged, Proposal, Replay, Spread
from edge_reclass_learn.pages.table import Table

_CLOSE = 5
"""Fewer tracks than that on the wrong side say little of a share."""


def policies(answers: Answers, proposal: Proposal, others: Mapping[str, Judged]) -> Table:
    """Cost, agreement and accuracy of the proposal and of the others."""
    name, full = proposal.policy.name, proposal.full.cost.mean
    rows = [
        (f"{name}, on tracks it was not chosen on", proposal.judged),
        (f"{name}, on those it was chosen on", proposal.on_all),
        *others.items(),
    ]
    clock = "processor time" if answers.heard_with == "cpu" else "time"
    labelled = sum(track.label is not None for track in answers.tracks)
    return Table(
        f"Expected cost of {len(answers.tracks)} tracks on {answers.heard_with}, {clock}, one lane, one thread",
        ("policy", ">ms per track", ">÷ full", ">agreement", ">accuracy"),
        tuple(
            (
                row,
                _spread(judged.cost, ".1f"),
                _spread(Spread(judged.cost.mean / full, judged.cost.deviation / full), ".3f"),
                _spread(judged.agreement, ".3f"),
                "" if judged.accuracy is None else _spread(judged.accuracy, ".3f"),
            )
            for row, judged in rows
        ),
        "Agreement: the verdict is that of the full answer, all stages after all windows. "
        + (f"Accuracy: of {labelled} labelled tracks. " if labelled else "")
        + "±: over repeated deals of the groups to folds.",
    )


def steps(answers: Answers, policy: Policy, replays: Mapping[str, Replay]) -> Table:
    """The policy's steps, and which share of the tracks stops after each, under it and under others."""
    accept = {(step.after, step.windows): step.accept for step in policy.steps}
    order = {name: i for i, name in enumerate((*policy.stages, *(facts.name for facts in answers.stages)))}
    places = [(facts.name, count) for facts in answers.stages for count in (*facts.windows, None)]
    used = [p for p in places if p in accept or any(p in replay.stops for replay in replays.values())]
    return Table(
        f"Steps of {policy.name}, and where tracks stop",
        ("stage", ">windows", ">accept above", *(f">{name}" for name in replays)),
        tuple(
            (
                place[0],
                "all" if place[1] is None else str(place[1]),
                "" if place not in accept else "decides" if (least := accept[place]) is None else f"{least:g}",
                *(f"{replay.stops.count(place) / len(replay.stops):.1%}" for replay in replays.values()),
            )
            for place in sorted(used, key=lambda place: order[place[0]])
        ),
    )


def doubts(answers: Answers, proposal: Proposal, goal: Goal) -> Iterator[str]:
    """Why a sceptic should not trust the proposal."""
    got = proposal.judged.agreement if goal.of == "agreement" else proposal.judged.accuracy
    if got is not None and got.mean < goal.share:
        yield (
            f"{goal.of} on tracks that it was not chosen on is {got.mean:.3f}, below {goal.share:g}: want more, "
            "or measure more tracks"
        )
    many = sum(goal.of == "agreement" or track.label is not None for track in answers.tracks)
    if (spare := many * (1 - goal.share)) < _CLOSE:
        yield f"few tracks: {1 - goal.share:.1%} of {many} are {spare:.1f}; measure some hundreds"
    (order, times), *_ = proposal.chosen.items()
    if times < (every := sum(proposal.chosen.values())):
        other = ", ".join(f"{' → '.join(o)} {n}" for o, n in proposal.chosen.items() if o != order)
        yield f"the order depends on the tracks: {' → '.join(order)} was chosen {times} of {every} times; {other}"


def _spread(spread: Spread, form: str) -> str:
    return f"{spread.mean:{form}}" + (f" ± {spread.deviation:{form}}" if spread.deviation else "")
